#include "models/image/heat_map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "fmt/format.h"
#include "models/image/canvas.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr Color kInk = {32, 33, 36};
constexpr Color kMuted = {95, 99, 104};
constexpr double kTextSize = 13;
constexpr double kTitleSize = 20;
constexpr int kMargin = 20;
constexpr int kCell = 16;
constexpr int kGap = 14;
constexpr int kScaleWidth = 160;
constexpr int64_t kMaxSide = 32767;

// From light to dark blue: by lightness, which everybody tells apart.
Color ColorOf(double share) {
  constexpr Color kLow = {239, 243, 250};
  constexpr Color kHigh = {3, 51, 112};
  const double at = std::clamp(share, 0.0, 1.0);
  Color color;
  for (size_t i = 0; i < color.size(); ++i) {
    color[i] = static_cast<uint8_t>(std::lround(
        static_cast<double>(kLow[i]) +
        at * (static_cast<double>(kHigh[i]) - static_cast<double>(kLow[i]))));
  }
  return color;
}

int LineHeight(double size) {
  return static_cast<int>(
      std::ceil(Canvas::Ascent(size) + Canvas::Descent(size)));
}

class Drawing {
 public:
  Drawing(const HeatMapOptions& options, double highest, int left, int width,
          int height)
      : options_(options),
        highest_(highest),
        left_(left),
        canvas_(width, height) {}

  int Title(int y) {
    if (options_.title.empty()) return y;
    canvas_.Text(kMargin, y + Canvas::Ascent(kTitleSize), options_.title,
                 kTitleSize, kInk);
    return y + LineHeight(kTitleSize) + kGap;
  }

  int Map(const HeatMap& map, int y) {
    canvas_.Text(left_, y + Canvas::Ascent(kTextSize), map.name, kTextSize,
                 kInk);
    y += LineHeight(kTextSize) + 4;
    for (int64_t row = 0; row < map.rows(); ++row) {
      const double top = y + static_cast<double>(row) * kCell;
      // Of every second, which have room.
      if (row % 2 == 0) {
        canvas_.Text(left_ - 6, top + Canvas::Ascent(kTextSize),
                     fmt::format("{}", row), kTextSize, kMuted,
                     TextAlign::kRight);
      }
      for (int64_t column = 0; column < map.columns; ++column) {
        const double value = map.values[row * map.columns + column];
        if (!std::isfinite(value)) continue;
        canvas_.Rectangle(left_ + static_cast<double>(column) * kCell, top,
                          kCell, kCell, ColorOf(value / highest_));
      }
    }
    y += static_cast<int>(map.rows()) * kCell;
    const double right = left_ + static_cast<double>(map.columns) * kCell;
    const double baseline = y + 2 + Canvas::Ascent(kTextSize);
    canvas_.Text(left_, baseline, fmt::format("{:.3g}", options_.column_low),
                 kTextSize, kMuted);
    canvas_.Text(right, baseline, fmt::format("{:.3g}", options_.column_high),
                 kTextSize, kMuted, TextAlign::kRight);
    return y + 2 + LineHeight(kTextSize) + kGap;
  }

  // What rows, columns and colours are.
  void Scale(int y) {
    canvas_.Text(left_, y + Canvas::Ascent(kTextSize),
                 fmt::format("rows: {}, columns: {}", options_.row_label,
                             options_.column_label),
                 kTextSize, kMuted);
    y += LineHeight(kTextSize) + 4;
    for (int x = 0; x < kScaleWidth; ++x) {
      canvas_.Rectangle(left_ + x, y, 1, kCell,
                        ColorOf(static_cast<double>(x) / (kScaleWidth - 1)));
    }
    const double baseline = y + Canvas::Ascent(kTextSize);
    canvas_.Text(left_ - 6, baseline, "0", kTextSize, kMuted,
                 TextAlign::kRight);
    canvas_.Text(left_ + kScaleWidth + 6, baseline,
                 fmt::format("{:.3g}", highest_), kTextSize, kMuted);
  }

  Image ToImage() const { return canvas_.ToImage(); }

 private:
  const HeatMapOptions& options_;
  double highest_;
  int left_;
  Canvas canvas_;
};

}  // namespace

absl::StatusOr<Image> DrawHeatMaps(const std::vector<HeatMap>& maps,
                                   const HeatMapOptions& options) {
  if (maps.empty()) return InvalidArgument("a picture of no map");
  double highest = 0, widest = Canvas::TextWidth(options.title, kTitleSize);
  int64_t most_columns = 0, most_rows = 0;
  int64_t height = 2 * kMargin + LineHeight(kTitleSize) + kGap +
                   LineHeight(kTextSize) + 4 + kCell;
  for (const HeatMap& map : maps) {
    if (map.rows() == 0 ||
        map.rows() * map.columns != static_cast<int64_t>(map.values.size())) {
      return InvalidArgument("map \"{}\" has {} values in {} columns", map.name,
                             map.values.size(), map.columns);
    }
    for (const double value : map.values) {
      if (std::isfinite(value)) highest = std::max(highest, value);
    }
    widest = std::max(widest, Canvas::TextWidth(map.name, kTextSize));
    most_columns = std::max(most_columns, map.columns);
    most_rows = std::max(most_rows, map.rows());
    height += map.rows() * kCell + 2 * LineHeight(kTextSize) + 6 + kGap;
  }
  if (highest == 0) highest = 1;
  const int left =
      kMargin + 8 +
      static_cast<int>(std::ceil(Canvas::TextWidth(
          fmt::format("{}", std::max<int64_t>(most_rows - 1, 0)), kTextSize)));
  const std::string labels = fmt::format(
      "rows: {}, columns: {}", options.row_label, options.column_label);
  widest = std::max(widest, Canvas::TextWidth(labels, kTextSize));
  const int64_t width =
      left + kMargin +
      std::max<int64_t>({most_columns * kCell,
                         static_cast<int64_t>(std::ceil(widest)),
                         kScaleWidth + 80});
  if (width > kMaxSide || height > kMaxSide) {
    return InvalidArgument("a picture of {}x{} pixels, expected at most {}",
                           width, height, kMaxSide);
  }
  Drawing drawing(options, highest, left, static_cast<int>(width),
                  static_cast<int>(height));
  int y = drawing.Title(kMargin);
  for (const HeatMap& map : maps) y = drawing.Map(map, y);
  drawing.Scale(y);
  return drawing.ToImage();
}

}  // namespace trireme
