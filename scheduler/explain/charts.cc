#include "scheduler/explain/charts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace trireme {
namespace {

constexpr double kWidth = 1200;
constexpr double kLeft = 74;
constexpr double kRight = 24;
constexpr double kTop = 64;
constexpr double kPlot = kWidth - kLeft - kRight;
constexpr double kLane = 30;        // of compute
constexpr double kSubLane = 6;      // of collectives, and of copies
constexpr double kGap = 8;          // between lanes
constexpr double kNarrowest = 0.2;  // pixels; less is not drawn alone
constexpr double kTogether = 2;     // pixels between what is drawn together

// A number of colours that differ in hue at like brightness; microbatches
// repeat them.
constexpr std::array<double, 8> kHues = {212, 28, 152, 338, 262, 48, 186, 4};

// "#rrggbb": not every reader of SVG knows hsl().
std::string Hsl(double hue, double saturation, double lightness) {
  const double light = lightness / 100;
  const double chroma = saturation / 100 * std::min(light, 1 - light);
  const auto channel = [&](double offset) {
    const double k = std::fmod(offset + hue / 30, 12);
    const double value =
        light - chroma * std::max(-1.0, std::min({k - 3, 9 - k, 1.0}));
    return static_cast<int>(std::lround(255 * value));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(0), channel(8), channel(4));
}

std::string ColourOf(InstructionKind kind, int32_t microbatch) {
  const double hue =
      kHues[static_cast<size_t>(std::max(0, microbatch)) % kHues.size()];
  switch (kind) {
    case InstructionKind::kForward:
      return Hsl(hue, 70, 80);
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
      return Hsl(hue, 55, 48);
    case InstructionKind::kBackwardWeight:
      return Hsl(hue, 45, 64);
    case InstructionKind::kReduceGradients:
      return "#7a7f87";
    case InstructionKind::kGatherParameters:
      return "#b3a06b";
    case InstructionKind::kFetch:
    case InstructionKind::kLoadActivation:
      return "#2f8f6b";
    case InstructionKind::kSaveGradients:
    case InstructionKind::kSaveActivation:
      return "#b9597f";
    default:
      return "#3d4451";
  }
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

// A round step (1, 2 or 5 times a power of ten) that divides `range` into at
// most `most` parts.
double NiceStep(double range, int most) {
  const double least = range / most;
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}

struct TimeUnit {
  double factor;
  std::string_view name;
};

TimeUnit UnitOfTime(double seconds) {
  if (seconds >= 2) return {1, "s"};
  if (seconds >= 2e-3) return {1e3, "ms"};
  return {1e6, "µs"};
}

class Svg {
 public:
  Svg(double height, std::string_view title) {
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} "
        "{1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" "
        "fill=\"#2b2f36\">\n<rect width=\"100%\" height=\"100%\" "
        "fill=\"white\"/>\n",
        kWidth, height);
    // As large as fits; a character is about 0.58 of its size wide.
    const double size = std::clamp(
        kPlot / (0.58 * static_cast<double>(std::max<size_t>(1, title.size()))),
        8.0, 16.0);
    Text(kLeft, 26, title, "start",
         fmt::format("font-size=\"{:.1f}\" font-weight=\"600\"", size));
  }

  void Rect(double x, double y, double width, double height,
            std::string_view fill, std::string_view more = "") {
    text_ += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
        "fill=\"{}\" {}/>\n",
        x, y, width, height, fill, more);
  }
  void Titled(double x, double y, double width, double height,
              std::string_view fill, std::string_view title,
              std::string_view more = "") {
    text_ += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
        "fill=\"{}\"{}><title>{}</title></rect>\n",
        x, y, width, height, fill, more, Escaped(title));
  }
  void Text(double x, double y, std::string_view text, std::string_view anchor,
            std::string_view more = "") {
    text_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", x,
        y, anchor, more, Escaped(text));
  }
  void Line(double x1, double y1, double x2, double y2, std::string_view stroke,
            std::string_view more = "") {
    text_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" "
        "stroke=\"{}\" {}/>\n",
        x1, y1, x2, y2, stroke, more);
  }
  // A row of colours with their names; returns where it ends.
  void Legend(double y,
              const std::vector<std::pair<std::string, std::string>>& entries) {
    double x = kLeft;
    for (const auto& [colour, name] : entries) {
      Rect(x, y - 10, 12, 12, colour, "rx=\"2\"");
      Text(x + 17, y, name, "start");
      x += 34 + 6.4 * static_cast<double>(name.size());
    }
  }
  std::string Done() { return text_ + "</svg>\n"; }

 private:
  std::string text_;
};

// At most `most` of `count` lanes, evenly spread, first and last among them.
std::vector<int32_t> LanesOf(int32_t count, int32_t most) {
  std::vector<int32_t> lanes;
  const int32_t shown = std::max(1, std::min(count, most));
  for (int32_t i = 0; i < shown; ++i) {
    lanes.push_back(shown == 1 ? 0
                               : static_cast<int32_t>(int64_t{i} * (count - 1) /
                                                      (shown - 1)));
  }
  return lanes;
}

// From 0 to `range`, at the width of the plot.
void Axis(Svg& svg, double range, double bottom, std::string_view name) {
  const double step = NiceStep(range, 10);
  for (int i = 0; i * step <= range * (1 + 1e-9); ++i) {
    const double x = kLeft + i * step / range * kPlot;
    svg.Line(x, kTop - 4, x, bottom + 4, "#e3e6ea");
    svg.Text(x, bottom + 20, fmt::format("{:.4g}", i * step), "middle",
             "fill=\"#6a707a\"");
  }
  svg.Text(kLeft + kPlot, bottom + 38, name, "end", "fill=\"#6a707a\"");
}

// What is too narrow to be drawn alone: neighbours of one kind on a lane as one
// rectangle, the paler the less of its time they take.
class NarrowOnes {
 public:
  NarrowOnes(Svg& svg, double y, double height)
      : svg_(svg), y_(y), height_(height) {}
  ~NarrowOnes() { Draw(); }
  NarrowOnes(const NarrowOnes&) = delete;
  NarrowOnes& operator=(const NarrowOnes&) = delete;

  void Add(double x, double width, InstructionKind kind,
           const std::string& colour) {
    const bool apart = colour != colour_ || x > end_ + kTogether || x < begin_;
    if (count_ > 0 && apart) Draw();
    if (count_ == 0) {
      begin_ = x;
      kind_ = kind;
      colour_ = colour;
    }
    end_ = x + width;
    busy_ += width;
    ++count_;
  }

 private:
  void Draw() {
    if (count_ > 0 && busy_ >= kNarrowest) {
      svg_.Titled(
          begin_, y_, end_ - begin_, height_, colour_,
          fmt::format("{} times {}", count_, InstructionKindName(kind_)),
          fmt::format(" fill-opacity=\"{:.2f}\"",
                      std::max(0.15, busy_ / (end_ - begin_))));
    }
    count_ = 0;
    busy_ = 0;
  }

  Svg& svg_;
  const double y_, height_;
  int64_t count_ = 0;
  double begin_ = 0, end_ = 0, busy_ = 0;
  InstructionKind kind_ = InstructionKind::kForward;
  std::string colour_;
};

// What goes on behind the next step is drawn where that of the step before is.
std::vector<Interval> WithinAStep(const Interval& interval, double step_s) {
  if (interval.end_s <= step_s) return {interval};
  std::vector<Interval> parts = {
      {std::max(0.0, interval.start_s - step_s), interval.end_s - step_s}};
  if (interval.start_s < step_s) parts.push_back({interval.start_s, step_s});
  return parts;
}

// Below its compute, from top to bottom.
std::vector<Resource> SubLanesOf(const Program& program) {
  if (!program.offload.has_value()) return {Resource::kCommunication};
  return {Resource::kCommunication, Resource::kCopyIn, Resource::kCopyOut,
          Resource::kHost};
}

}  // namespace

std::string TimelineSvg(const Program& program, const Simulation& simulation,
                        const std::string& title, int32_t max_lanes) {
  const std::vector<int32_t> lanes = LanesOf(program.num_ranks(), max_lanes);
  const std::vector<Resource> sub_lanes = SubLanesOf(program);
  const double pitch =
      kLane + kSubLane * static_cast<double>(sub_lanes.size()) + kGap;
  const double bottom = kTop + pitch * static_cast<double>(lanes.size()) - kGap;
  Svg svg(bottom + 52, title);
  const double hue = kHues[0];
  bool halves = false;
  for (const Instruction& instruction : program.ranks.front()) {
    halves |= instruction.kind == InstructionKind::kBackwardWeight;
  }
  std::vector<std::pair<std::string, std::string>> legend = {
      {ColourOf(InstructionKind::kForward, 0), "forward"},
      {ColourOf(InstructionKind::kBackward, 0),
       halves ? "backward, inputs" : "backward"}};
  if (halves) {
    legend.emplace_back(ColourOf(InstructionKind::kBackwardWeight, 0),
                        "backward, weights");
  }
  legend.emplace_back(ColourOf(InstructionKind::kUpdate, 0), "optimizer");
  legend.emplace_back(ColourOf(InstructionKind::kReduceGradients, 0),
                      "gradient reduction");
  legend.emplace_back(ColourOf(InstructionKind::kGatherParameters, 0),
                      "parameter gather");
  if (program.offload.has_value()) {
    legend.emplace_back(ColourOf(InstructionKind::kFetch, 0), "copy in");
    legend.emplace_back(ColourOf(InstructionKind::kSaveGradients, 0),
                        "copy out");
  }
  legend.emplace_back("#f1f3f5", "idle");
  legend.emplace_back(Hsl(hue + 120, 55, 48), "a colour for each microbatch");
  svg.Legend(48, legend);
  const TimeUnit unit = UnitOfTime(simulation.step_s);
  Axis(svg, simulation.step_s * unit.factor, bottom,
       fmt::format("time ({})", unit.name));
  const double scale = kPlot / simulation.step_s;
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    const int32_t rank = lanes[lane];
    const double y = kTop + pitch * static_cast<double>(lane);
    svg.Text(kLeft - 10, y + kLane / 2 + 4, fmt::format("rank {}", rank),
             "end");
    svg.Rect(kLeft, y, kPlot, kLane, "#f1f3f5");
    const std::vector<Instruction>& list = program.ranks[rank];
    std::map<Resource, NarrowOnes> narrow;
    for (size_t i = 0; i < list.size(); ++i) {
      const Instruction& instruction = list[i];
      for (const Interval& interval :
           WithinAStep(simulation.times[rank][i], simulation.step_s)) {
        const double width = (interval.end_s - interval.start_s) * scale;
        const Resource resource = instruction.resource;
        const bool compute = resource == Resource::kCompute;
        const auto sub_lane =
            std::find(sub_lanes.begin(), sub_lanes.end(), resource);
        const bool message = instruction.kind == InstructionKind::kSend ||
                             instruction.kind == InstructionKind::kRecv;
        if (message || (!compute && sub_lane == sub_lanes.end())) continue;
        const double top =
            compute ? y
                    : y + kLane + 1 +
                          kSubLane *
                              static_cast<double>(sub_lane - sub_lanes.begin());
        const double height = compute ? kLane : kSubLane;
        const double x = kLeft + interval.start_s * scale;
        const std::string colour =
            ColourOf(instruction.kind, instruction.microbatch);
        if (width < kNarrowest) {
          narrow.try_emplace(resource, svg, top, height)
              .first->second.Add(x, width, instruction.kind, colour);
          continue;
        }
        // A hair of white between neighbours.
        const double inset = width > 3 ? 0.5 : 0;
        svg.Titled(x, top, width - inset, height, colour, ToText(instruction));
        if (compute && instruction.microbatch >= 0 && width > 16) {
          const bool light = instruction.kind == InstructionKind::kForward;
          svg.Text(x + width / 2, y + kLane / 2 + 4,
                   std::to_string(instruction.microbatch), "middle",
                   light ? "fill=\"#2b2f36\" font-size=\"11\" "
                           "pointer-events=\"none\""
                         : "fill=\"white\" font-size=\"11\" "
                           "pointer-events=\"none\"");
        }
      }
    }
  }
  return svg.Done();
}

std::string MemorySvg(const std::vector<MemoryBytes>& peak,
                      const std::vector<int64_t>& limit,
                      const std::string& title, int32_t max_lanes) {
  const std::vector<int32_t> lanes =
      LanesOf(static_cast<int32_t>(peak.size()), max_lanes);
  const double pitch = kLane + kGap;
  const double bottom = kTop + pitch * static_cast<double>(lanes.size()) - kGap;
  Svg svg(bottom + 52, title);
  constexpr std::array<const char*, kMemoryCategories.size()> kColours = {
      "#3b6fb6", "#79a7dc", "#2f8f6b", "#e0913a", "#b9597f", "#8d939c"};
  std::vector<std::pair<std::string, std::string>> legend;
  for (size_t i = 0; i < kColours.size(); ++i) {
    legend.emplace_back(kColours[i], kMemoryCategories[i].name);
  }
  legend.emplace_back("#c22f2f", "device's limit");
  svg.Legend(48, legend);
  double largest = 1;
  for (const int32_t rank : lanes) {
    largest = std::max({largest, static_cast<double>(peak[rank].total()),
                        static_cast<double>(limit[rank])});
  }
  const double range = 1.03 * largest / 1e9;
  Axis(svg, range, bottom, "memory (GB)");
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    const int32_t rank = lanes[lane];
    const double y = kTop + pitch * static_cast<double>(lane);
    svg.Text(kLeft - 10, y + kLane / 2 + 4, fmt::format("rank {}", rank),
             "end");
    const MemoryBytes& bytes = peak[rank];
    double x = kLeft;
    for (size_t i = 0; i < kColours.size(); ++i) {
      const auto& [name, member] = kMemoryCategories[i];
      const double gigabytes = static_cast<double>(bytes.*member) / 1e9;
      const double width = gigabytes / range * kPlot;
      if (width >= kNarrowest) {
        svg.Titled(x, y, width, kLane, kColours[i],
                   fmt::format("{} {:.2f} GB", name, gigabytes));
      }
      x += width;
    }
    const double at =
        kLeft + static_cast<double>(limit[rank]) / 1e9 / range * kPlot;
    svg.Line(at, y - 3, at, y + kLane + 3, "#c22f2f", "stroke-width=\"2\"");
    const std::string total =
        fmt::format("{:.1f} GB", static_cast<double>(bytes.total()) / 1e9);
    const bool inside = x + 70 > kLeft + kPlot || (at > x && at - x < 70);
    svg.Text(
        inside ? x - 6 : x + 6, y + kLane / 2 + 4, total,
        inside ? "end" : "start",
        inside ? "fill=\"white\" font-weight=\"600\"" : "font-weight=\"600\"");
  }
  return svg.Done();
}

}  // namespace trireme
