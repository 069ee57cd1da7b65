#include "models/image/line_plot.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "models/image/canvas.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr Color kInk = {32, 33, 36};
constexpr Color kMuted = {95, 99, 104};
constexpr Color kGridLine = {228, 230, 233};
constexpr Color kAxis = {128, 134, 139};
// Distinguishable also by people who are colour-blind (Okabe and Ito).
constexpr Color kPalette[] = {{0, 114, 178},   {213, 94, 0},  {0, 158, 115},
                              {204, 121, 167}, {230, 159, 0}, {86, 180, 233}};
constexpr double kTextSize = 15;
constexpr double kTitleSize = 22;
constexpr int kMargin = 24;
// Larger values (and infinities) are not shown; differences stay finite.
constexpr double kLargest = 1e300;

struct Tick {
  double value;  // on the axis: the logarithm on a logarithmic one
  std::string text;
};

struct Axis {
  double low;
  double high;
  std::vector<Tick> ticks;

  double Fraction(double value) const { return (value - low) / (high - low); }
};

// Steps of 1, 2 or 5 times a power of ten, the axis ending on ticks if
// `round_ends`.
Axis LinearAxis(double low, double high, int most_ticks, bool round_ends) {
  if (!(high > low)) {
    const double pad = low == 0 ? 1 : std::abs(low) / 2;
    low -= pad;
    high += pad;
  }
  const double least = (high - low) / most_ticks;
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= least * (1 - 1e-9)) step = factor * power;
  }
  const double first_tick = (round_ends ? std::floor(low / step + 1e-9)
                                        : std::ceil(low / step - 1e-9));
  const double last_tick = (round_ends ? std::ceil(high / step - 1e-9)
                                       : std::floor(high / step + 1e-9));
  const int decimals =
      std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
  Axis axis{round_ends ? first_tick * step : low,
            round_ends ? last_tick * step : high,
            {}};
  for (double i = first_tick; i <= last_tick; ++i) {
    // Adding zero turns -0 into 0.
    const double value = i * step + 0.0;
    axis.ticks.push_back(
        {value, std::abs(value) >= 1e7 || step < 1e-9
                    ? fmt::format("{:.3g}", value)
                    : fmt::format("{:.{}f}", value, decimals)});
  }
  return axis;
}

// For values that are logarithms to base 10.
Axis LogAxis(double low, double high) {
  if (high - low < 1e-9) {
    low -= 0.15;
    high += 0.15;
  }
  Axis axis{low, high, {}};
  const bool narrow = high - low < 1.5;
  const bool wide = high - low > 8;
  for (double power = std::floor(low); power <= high; ++power) {
    for (const int factor : {1, 2, 3, 5, 7}) {
      if (factor != 1 && (wide || (!narrow && factor != 3))) continue;
      const double value = power + std::log10(factor);
      if (value < low - 1e-9 || value > high + 1e-9) continue;
      axis.ticks.push_back(
          {value, fmt::format("{:.4g}", factor * std::pow(10.0, power))});
    }
  }
  if (axis.ticks.size() >= 2) return axis;
  // Within a factor of about one: the ticks of a linear axis.
  axis.ticks.clear();
  for (Tick& tick :
       LinearAxis(std::pow(10.0, low), std::pow(10.0, high), 6, false).ticks) {
    axis.ticks.push_back({std::log10(tick.value), std::move(tick.text)});
  }
  return axis;
}

struct PlotArea {
  double left, top, right, bottom;

  double X(const Axis& axis, double value) const {
    return left + axis.Fraction(value) * (right - left);
  }
  double Y(const Axis& axis, double value) const {
    return bottom - axis.Fraction(value) * (bottom - top);
  }
};

// From the middle of a line of numbers or small letters to its base line.
double MiddleToBaseline() { return 0.36 * kTextSize; }

double LineHeight(double size) {
  return Canvas::Ascent(size) + Canvas::Descent(size);
}

void DrawAxes(Canvas& plot, const PlotArea& area, const Axis& x_axis,
              const Axis& y_axis) {
  for (const Tick& tick : y_axis.ticks) {
    const double y = std::round(area.Y(y_axis, tick.value));
    plot.Rectangle(area.left, y, area.right - area.left, 1, kGridLine);
    plot.Text(area.left - 10, y + MiddleToBaseline(), tick.text, kTextSize,
              kMuted, TextAlign::kRight);
  }
  for (const Tick& tick : x_axis.ticks) {
    const double x = std::round(area.X(x_axis, tick.value));
    plot.Rectangle(x, area.bottom, 1, 7, kAxis);
    const double half = Canvas::TextWidth(tick.text, kTextSize) / 2;
    plot.Text(std::min(x, plot.width() - half - 4),
              area.bottom + 10 + Canvas::Ascent(kTextSize), tick.text,
              kTextSize, kMuted, TextAlign::kCenter);
  }
  plot.Rectangle(area.left, area.bottom, area.right - area.left + 1, 1, kAxis);
}

void DrawLegend(Canvas& plot, const PlotArea& area,
                const std::vector<LineSeries>& series) {
  constexpr double kSwatch = 30;
  const double height = LineHeight(kTextSize);
  double widest = 0;
  int entries = 0;
  for (const LineSeries& line : series) {
    if (line.name.empty()) continue;
    widest = std::max(widest, Canvas::TextWidth(line.name, kTextSize));
    ++entries;
  }
  if (entries == 0) return;
  const double x = area.right - 14 - kSwatch - 10 - widest;
  double y = area.top + 12;
  plot.Rectangle(x - 10, y - 8, kSwatch + widest + 30,
                 entries * (height + 6) + 10, {255, 255, 255});
  for (const LineSeries& line : series) {
    if (line.name.empty()) continue;
    const double middle = y + height / 2;
    const Point ends[] = {{x, middle}, {x + kSwatch, middle}};
    plot.Polyline(ends, line.width, line.opacity, 0, plot.height(),
                  kPalette[line.color % std::size(kPalette)]);
    plot.Text(x + kSwatch + 10, middle + MiddleToBaseline(), line.name,
              kTextSize, kInk);
    y += height + 6;
  }
}

}  // namespace

absl::StatusOr<Image> DrawLinePlot(const std::vector<LineSeries>& series,
                                   const LinePlotOptions& options) {
  if (options.width < 320 || options.width > 8192 || options.height < 200 ||
      options.height > 8192) {
    return InvalidArgument(
        "a plot of {}x{} pixels, expected 320x200 to 8192x8192", options.width,
        options.height);
  }
  const auto shown = [&](double x, double y) {
    return std::abs(x) < kLargest && std::abs(y) < kLargest &&
           (!options.log_y || y > 0);
  };
  const auto on_axis = [&](double y) {
    return options.log_y ? std::log10(y) : y;
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double x_low = kInfinity, x_high = -kInfinity;
  double y_low = kInfinity, y_high = -kInfinity;
  for (const LineSeries& line : series) {
    CHECK_GE(line.color, 0);
    if (line.x.size() != line.y.size()) {
      return InvalidArgument("line \"{}\" has {} x and {} y values", line.name,
                             line.x.size(), line.y.size());
    }
    for (size_t i = 0; i < line.x.size(); ++i) {
      if (!shown(line.x[i], line.y[i])) continue;
      x_low = std::min(x_low, line.x[i]);
      x_high = std::max(x_high, line.x[i]);
      y_low = std::min(y_low, on_axis(line.y[i]));
      y_high = std::max(y_high, on_axis(line.y[i]));
    }
  }
  if (!(x_low <= x_high)) {
    return InvalidArgument("a plot without a point to show");
  }

  const Axis x_axis = LinearAxis(x_low, x_high, options.width / 110, false);
  const Axis y_axis =
      options.log_y ? LogAxis(y_low, y_high)
                    : LinearAxis(y_low, y_high, options.height / 70, true);
  double numbers_width = 0;
  for (const Tick& tick : y_axis.ticks) {
    numbers_width =
        std::max(numbers_width, Canvas::TextWidth(tick.text, kTextSize));
  }
  const double text_height = LineHeight(kTextSize);
  PlotArea area{kMargin + numbers_width + 10, kMargin,
                options.width - kMargin - 8.0,
                options.height - kMargin - text_height - 10};
  if (!options.title.empty()) area.top += LineHeight(kTitleSize) + 8;
  if (!options.y_label.empty()) area.top += text_height + 12;
  if (!options.x_label.empty()) area.bottom -= text_height + 6;
  // Grid lines and the axes are sharp on whole pixels only.
  area = {std::round(area.left), std::round(area.top), std::round(area.right),
          std::round(area.bottom)};

  Canvas plot(options.width, options.height);
  plot.Text(kMargin, kMargin + Canvas::Ascent(kTitleSize), options.title,
            kTitleSize, kInk);
  plot.Text(kMargin, area.top - 12 - Canvas::Descent(kTextSize),
            options.y_label, kTextSize, kMuted);
  plot.Text((area.left + area.right) / 2,
            options.height - kMargin - Canvas::Descent(kTextSize) + 8,
            options.x_label, kTextSize, kMuted, TextAlign::kCenter);
  DrawAxes(plot, area, x_axis, y_axis);

  for (const LineSeries& line : series) {
    std::vector<Point> run;
    for (size_t i = 0; i <= line.x.size(); ++i) {
      if (i < line.x.size() && shown(line.x[i], line.y[i])) {
        run.push_back(
            {area.X(x_axis, line.x[i]), area.Y(y_axis, on_axis(line.y[i]))});
        continue;
      }
      plot.Polyline(run, line.width, line.opacity, area.top, area.bottom + 1,
                    kPalette[line.color % std::size(kPalette)]);
      run.clear();
    }
  }
  DrawLegend(plot, area, series);
  return plot.ToImage();
}

std::vector<double> MovingAverage(std::span<const double> values, int window) {
  CHECK_GT(window, 0);
  std::vector<double> averages;
  averages.reserve(values.size());
  const auto before = static_cast<size_t>(window - 1) / 2;
  const size_t behind = static_cast<size_t>(window - 1) - before;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t first = i > before ? i - before : 0;
    const size_t end = std::min(values.size(), i + behind + 1);
    double sum = 0;
    for (size_t j = first; j < end; ++j) sum += values[j];
    averages.push_back(sum / static_cast<double>(end - first));
  }
  return averages;
}

}  // namespace trireme
