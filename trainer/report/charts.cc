#include "trainer/report/charts.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>

#include "fmt/format.h"

namespace trireme {
namespace {

constexpr double kWidth = 720;
constexpr double kHeight = 220;
// Labels are larger on a narrow page (kStyle).
constexpr double kLeft = 84;
constexpr double kBottom = 28;
constexpr double kTop = 16;
constexpr double kRight = 8;
constexpr int kColours = 8;
constexpr size_t kColumns = 600;
constexpr double kLaneHeight = 22;
constexpr int kMostLogTicks = 8;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // One value alone has room around it.
  void Widen() {
    if (low < high) return;
    const double room = low == 0 ? 1 : std::abs(low) / 2;
    low -= room;
    high += room;
  }
};

// 1, 2 or 5 times a power of ten, some five of them in the range.
std::vector<double> Ticks(const Range& range) {
  const double rough = (range.high - range.low) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double times = rough / power;
  const double step = power * (times < 1.5   ? 1
                               : times < 3.5 ? 2
                               : times < 7.5 ? 5
                                             : 10);
  std::vector<double> ticks;
  for (double at = std::ceil(range.low / step) * step;
       at <= range.high + step * 1e-9 && ticks.size() < 20; at += step) {
    ticks.push_back(std::abs(at) < step * 1e-9 ? 0 : at);
  }
  return ticks;
}

// Powers of ten in the range, or 1, 2 and 5 times these, or as Ticks where
// there are fewer than three.
std::vector<double> LogTicks(double low, double high) {
  const auto first = static_cast<int>(std::floor(std::log10(low)));
  const auto last = static_cast<int>(std::floor(std::log10(high)));
  const int stride = (last - first) / kMostLogTicks + 1;
  for (const std::vector<double>& digits :
       {std::vector<double>{1}, std::vector<double>{1, 2, 5}}) {
    std::vector<double> ticks;
    for (int power = first; power <= last; power += stride) {
      for (const double digit : digits) {
        const double tick = digit * std::pow(10, power);
        if (low <= tick && tick <= high) ticks.push_back(tick);
      }
    }
    if (ticks.size() >= 3) return ticks;
  }
  return Ticks({low, high});
}

// The lowest and highest point of each column.
std::vector<std::pair<double, double>> Thinned(
    const std::vector<std::pair<double, double>>& points) {
  if (points.size() <= 2 * kColumns) return points;
  std::vector<std::pair<double, double>> thinned;
  for (size_t column = 0; column < kColumns; ++column) {
    const auto begin = points.begin() + column * points.size() / kColumns;
    const auto end = points.begin() + (column + 1) * points.size() / kColumns;
    const auto by_y = [](const auto& a, const auto& b) {
      return a.second < b.second;
    };
    auto [low, high] = std::minmax_element(begin, end, by_y);
    if (high < low) std::swap(low, high);
    thinned.push_back(*low);
    if (low != high) thinned.push_back(*high);
  }
  return thinned;
}

std::string Figure(const std::string& title, const std::string& content) {
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n",
                     EscapeHtml(title), content);
}

std::string SvgBegin(double height) {
  return fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "preserveAspectRatio=\"xMidYMid meet\">",
      kWidth, height);
}

std::string Label(double x, double y, std::string_view anchor,
                  std::string_view text) {
  return fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y,
      anchor, EscapeHtml(text));
}

// Below a chart, centred at `to_x` of each tick, none cut off at its end.
std::string BottomLabels(const std::vector<double>& ticks, double height,
                         const std::function<double(double)>& to_x,
                         const std::function<std::string(double)>& text) {
  std::string labels;
  for (const double tick : ticks) {
    const double x = to_x(tick);
    labels += Label(x, height - 8, x > kWidth - kRight - 40 ? "end" : "middle",
                    text(tick));
  }
  return labels;
}

std::string Colour(int index) {
  return fmt::format("var(--c{})", index % kColours);
}

std::string Legend(const std::vector<std::string>& names) {
  std::string text = "<p class=\"legend\">";
  for (size_t i = 0; i < names.size(); ++i) {
    text += fmt::format("<span><i style=\"background:{}\"></i>{}</span>",
                        Colour(static_cast<int>(i)), EscapeHtml(names[i]));
  }
  return text + "</p>";
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string CurveChart(const std::string& title,
                       const std::vector<Curve>& curves, bool log) {
  Range xs, ys;
  std::vector<Curve> drawn;
  for (const Curve& curve : curves) {
    Curve& kept = drawn.emplace_back();
    kept.name = curve.name;
    for (const auto& point : curve.points) {
      if (!std::isfinite(point.first) || !std::isfinite(point.second)) continue;
      kept.points.push_back(point);
      xs.Add(point.first);
      ys.Add(point.second);
    }
  }
  if (!(xs.low <= xs.high)) return Figure(title, "<p>nothing to draw</p>");
  log = log && ys.low > 0;
  if (log) ys = {std::log10(ys.low), std::log10(ys.high)};
  xs.Widen();
  ys.Widen();
  const auto to_x = [&](double x) {
    return kLeft +
           (x - xs.low) / (xs.high - xs.low) * (kWidth - kLeft - kRight);
  };
  const auto to_y = [&](double y) {
    return kTop +
           (ys.high - y) / (ys.high - ys.low) * (kHeight - kTop - kBottom);
  };
  std::string svg = SvgBegin(kHeight);
  for (const double tick :
       log ? LogTicks(std::pow(10, ys.low), std::pow(10, ys.high))
           : Ticks(ys)) {
    const double y = to_y(log ? std::log10(tick) : tick);
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" "
        "y2=\"{:.1f}\"/>",
        kLeft, kWidth - kRight, y, y);
    svg += Label(kLeft - 6, y + 4, "end", fmt::format("{:.6g}", tick));
  }
  svg += BottomLabels(Ticks(xs), kHeight, to_x,
                      [](double tick) { return fmt::format("{:.6g}", tick); });
  std::vector<std::string> names;
  for (size_t i = 0; i < drawn.size(); ++i) {
    names.push_back(drawn[i].name);
    std::string line;
    for (const auto& [x, y] : Thinned(drawn[i].points)) {
      line +=
          fmt::format("{:.1f},{:.1f} ", to_x(x), to_y(log ? std::log10(y) : y));
    }
    svg += fmt::format("<polyline style=\"stroke:{}\" points=\"{}\"/>",
                       Colour(static_cast<int>(i)), line);
  }
  return Figure(title,
                svg + "</svg>" + (names.size() > 1 ? Legend(names) : ""));
}

std::string ShareChart(const std::string& title, const std::string& unit,
                       std::vector<std::pair<std::string, double>> parts) {
  std::erase_if(parts, [](const auto& part) { return !(part.second > 0); });
  std::sort(parts.begin(), parts.end(),
            [](const auto& a, const auto& b) { return a.second > b.second; });
  double sum = 0;
  for (const auto& [name, value] : parts) sum += value;
  if (sum <= 0) return Figure(title, "<p>nothing to draw</p>");
  // Of what would be written as 0.0 % nothing is seen.
  std::erase_if(parts,
                [&](const auto& part) { return part.second < 0.0005 * sum; });
  std::string bar = "<div class=\"bar\">", rows;
  for (size_t i = 0; i < parts.size(); ++i) {
    const double percent = 100 * parts[i].second / sum;
    const std::string colour = Colour(static_cast<int>(i));
    bar += fmt::format("<i style=\"width:{:.2f}%;background:{}\"></i>", percent,
                       colour);
    rows += fmt::format(
        "<tr><td><i class=\"key\" style=\"background:{}\"></i>{}</td>"
        "<td>{:.4g} {}</td><td>{:.1f} %</td></tr>",
        colour, EscapeHtml(parts[i].first), parts[i].second, EscapeHtml(unit),
        percent);
  }
  return Figure(title, bar + "</div><table>" + rows + "</table>");
}

std::string LaneChart(const std::string& title,
                      const std::vector<Lane>& lanes) {
  Range time;
  std::map<std::string, int> kinds;
  for (const Lane& lane : lanes) {
    for (const LaneEvent& event : lane.events) {
      time.Add(event.begin);
      time.Add(event.end);
      kinds.emplace(event.kind, 0);
    }
  }
  if (!(time.low < time.high)) return Figure(title, "<p>nothing to draw</p>");
  std::vector<std::string> names;
  for (auto& [kind, colour] : kinds) {
    colour = static_cast<int>(names.size());
    names.push_back(kind);
  }
  const double height =
      kTop + kLaneHeight * static_cast<double>(lanes.size()) + kBottom;
  const auto to_x = [&](double at) {
    return kLeft +
           (at - time.low) / (time.high - time.low) * (kWidth - kLeft - kRight);
  };
  std::string svg = SvgBegin(height);
  for (size_t i = 0; i < lanes.size(); ++i) {
    const double y = kTop + kLaneHeight * static_cast<double>(i);
    svg += Label(kLeft - 6, y + 15, "end", lanes[i].name);
    for (const LaneEvent& event : lanes[i].events) {
      svg += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\" "
          "style=\"fill:{}\"><title>{}, {:.4g} ms</title></rect>",
          to_x(event.begin), y + 2,
          std::max(0.3, to_x(event.end) - to_x(event.begin)), kLaneHeight - 4,
          Colour(kinds.at(event.kind)), EscapeHtml(event.name),
          1000 * (event.end - event.begin));
    }
  }
  const Range shifted = {0, 1000 * (time.high - time.low)};
  svg += BottomLabels(
      Ticks(shifted), height,
      [&](double tick) { return to_x(time.low + tick / 1000); },
      [](double tick) { return fmt::format("{:.6g} ms", tick); });
  return Figure(title, svg + "</svg>" + Legend(names));
}

}  // namespace trireme
