#include "trainer/report/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/file.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"
#include "runtime/telemetry/metrics_log.h"
#include "runtime/telemetry/progress.h"
#include "scheduler/pieces/model_shape.h"
#include "trainer/report/charts.h"

namespace trireme {
namespace {

using Json = nlohmann::json;
using Parts = std::vector<std::pair<std::string, double>>;

constexpr int64_t kMostBytes = 64 << 20;
constexpr size_t kMostSamples = 4;
constexpr size_t kMostLanes = 32;
constexpr size_t kMostEventsOfLane = 2000;

constexpr char kBegin[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"generator\" content=\"trireme report\">";
constexpr char kStyle[] = R"css(
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21;
  --soft: #667; --grid: #dde; --c0: #2563eb; --c1: #e4572e; --c2: #17a398;
  --c3: #a23bc4; --c4: #d29a00; --c5: #5c6b7a; --c6: #d6336c; --c7: #3f8f29; }
@media (prefers-color-scheme: dark) { :root { --back: #14161a; --text: #e6e8ec;
  --soft: #9aa3b0; --grid: #2c3038; --c0: #6ea8ff; --c1: #ff8a66;
  --c2: #4fd1c5; --c3: #d08cf0; --c4: #f2c14e; --c5: #98a6b5; --c6: #ff7aa8;
  --c7: #86d16c; } }
body { background: var(--back); color: var(--text); max-width: 60rem;
  margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
svg polyline { fill: none; stroke-width: 1.5; }
svg .grid { stroke: var(--grid); }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0;
  text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
pre { overflow-x: auto; border: 1px solid var(--grid); padding: .8rem;
  font-size: 13px; }
img { max-width: 100%; height: auto; image-rendering: pixelated; }
.bar { display: flex; height: 1.6rem; overflow: hidden; margin: .4rem 0; }
.key, .legend i { display: inline-block; width: .8rem; height: .8rem;
  margin-right: .4rem; } .legend span { margin-right: 1rem;
  display: inline-block; }
.legend { color: var(--soft); font-size: 13px; margin: .2rem 0; }
/* Charts are as wide as the page: there their labels would be too small. */
@media (max-width: 32rem) { body { padding: .6rem; }
  svg text { font-size: 20px; } }
)css";

double NumberOr(const Json& object, const std::string& key, double otherwise) {
  return object.is_object() && object.contains(key) && object[key].is_number()
             ? object[key].get<double>()
             : otherwise;
}

std::string StringOf(const Json& object, const std::string& key) {
  return object.is_object() && object.contains(key) && object[key].is_string()
             ? object[key].get<std::string>()
             : "";
}

Curve CurveOf(const std::vector<Json>& steps, const std::string& key,
              const std::string& name, double factor = 1) {
  Curve curve{.name = name};
  for (const Json& step : steps) {
    curve.points.emplace_back(NumberOr(step, "step", NAN),
                              factor * NumberOr(step, key, NAN));
  }
  return curve;
}

// Whether anything of it is drawn.
bool HasPoints(const Curve& curve) {
  return std::any_of(
      curve.points.begin(), curve.points.end(),
      [](const auto& point) { return std::isfinite(point.second); });
}

// Losses jump from batch to batch: their mean over such a part of the run,
// which of less than two steps a part is the loss itself. Of steps that went
// wrong there is none.
constexpr size_t kWindows = 50;

Curve Smoothed(Curve curve) {
  std::erase_if(curve.points,
                [](const auto& point) { return !std::isfinite(point.second); });
  Curve smoothed{.name = "mean"};
  const size_t window = std::max<size_t>(1, curve.points.size() / kWindows);
  double sum = 0;
  for (size_t i = 0; i < curve.points.size(); ++i) {
    sum += curve.points[i].second;
    if (i >= window) sum -= curve.points[i - window].second;
    if (i + 1 < window) continue;
    // In the middle of what it is of, or it would lie beside a falling curve.
    const double middle =
        (curve.points[i + 1 - window].first + curve.points[i].first) / 2;
    smoothed.points.emplace_back(middle, sum / static_cast<double>(window));
  }
  return smoothed;
}

// Milliseconds below a tenth of a second.
constexpr double kLeastInSeconds = 0.1;
// GiB above so many MiB.
constexpr double kMostInMebibytes = 10240;

std::string SecondsText(double seconds) {
  return seconds < kLeastInSeconds ? fmt::format("{:.4g} ms", 1000 * seconds)
                                   : fmt::format("{:.4g} s", seconds);
}

double SumOf(const Parts& parts) {
  double sum = 0;
  for (const auto& [name, value] : parts) sum += value;
  return sum;
}

Parts Times(double factor, Parts parts) {
  for (auto& [name, value] : parts) value *= factor;
  return parts;
}

std::string TimeChart(Parts seconds) {
  const bool short_step = SumOf(seconds) < kLeastInSeconds;
  return ShareChart("Mean over ranks", short_step ? "ms" : "s",
                    Times(short_step ? 1000 : 1, std::move(seconds)));
}

std::string MemoryChart(Parts mebibytes) {
  const bool large = SumOf(mebibytes) > kMostInMebibytes;
  return ShareChart("Peak of the fullest rank, by category",
                    large ? "GiB" : "MiB",
                    Times(large ? 1.0 / 1024 : 1, std::move(mebibytes)));
}

// The mean step, the first left out: it warms up.
Parts TimeParts(const std::vector<Json>& steps) {
  std::map<std::string, double> sums;
  const size_t first = steps.size() > 1 ? 1 : 0;
  for (size_t i = first; i < steps.size(); ++i) {
    sums["compute"] += NumberOr(steps[i], "compute_s", 0);
    if (!steps[i].contains("exposed_s") || !steps[i]["exposed_s"].is_object()) {
      continue;
    }
    for (const auto& [cause, seconds] : steps[i]["exposed_s"].items()) {
      if (seconds.is_number()) sums[cause] += seconds.get<double>();
    }
  }
  Parts parts;
  for (const auto& [cause, sum] : sums) {
    parts.emplace_back(cause, sum / static_cast<double>(steps.size() - first));
  }
  return parts;
}

Parts MemoryParts(const Json& step) {
  Parts parts;
  if (!step.contains("peak_bytes") || !step["peak_bytes"].is_object()) {
    return parts;
  }
  for (const auto& [category, bytes] : step["peak_bytes"].items()) {
    if (bytes.is_number()) {
      parts.emplace_back(category, bytes.get<double>() / (1 << 20));
    }
  }
  return parts;
}

std::string Row(const std::string& name, const std::string& value) {
  return fmt::format("<tr><th>{}</th><td>{}</td></tr>", EscapeHtml(name),
                     EscapeHtml(value));
}

std::string Summary(const RunFolder& run, const std::vector<Json>& steps) {
  const auto median = [&](const std::string& key) {
    std::vector<double> values;
    for (size_t i = steps.size() > 1 ? 1 : 0; i < steps.size(); ++i) {
      const double value = NumberOr(steps[i], key, NAN);
      if (std::isfinite(value)) values.push_back(value);
    }
    return Median(values);
  };
  double total = 0;
  for (const Json& step : steps) total += NumberOr(step, "step_s", 0);
  const Json& last = steps.back();
  std::string text = "<table>";
  text += Row("folder", run.root());
  text +=
      Row("steps",
          fmt::format("{:.0f}, in {} of training", NumberOr(last, "step", 0),
                      total < 60 ? SecondsText(total) : DurationText(total)));
  text += Row("last loss", fmt::format("{:.5g}", NumberOr(last, "loss", NAN)));
  text +=
      Row("median step",
          fmt::format("{}, {:.4g} samples/s, {:.4g} model TFLOP/s",
                      SecondsText(median("step_s")), median("samples_per_s"),
                      median("model_flops_per_s") / 1e12));
  text += Row("model FLOPs", std::string(kModelFlopsMeaning));
  const double skipped = NumberOr(last, "skipped_samples", 0);
  if (skipped > 0) {
    text += Row("skipped samples", fmt::format("{:.0f}", skipped));
  }
  const auto checkpoints = ListDirectory(run.checkpoints());
  std::string names;
  if (checkpoints.ok()) {
    for (const std::string& name : *checkpoints) {
      if (!StepOfName(name).has_value()) continue;
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  text += Row("checkpoints", names.empty() ? "none" : names);
  return text + "</table>\n";
}

// The first step of each rank's trace; none where it is no such file.
std::vector<Lane> LanesOf(const RunFolder& run) {
  std::vector<Lane> lanes;
  const auto names = ListDirectory(run.trace());
  if (!names.ok()) return lanes;
  for (const std::string& name : *names) {
    if (lanes.size() == kMostLanes || !absl::StartsWith(name, "rank_") ||
        !absl::EndsWith(name, ".json")) {
      continue;
    }
    const auto text = ReadFile(run.trace() + "/" + name, kMostBytes);
    if (!text.ok()) continue;
    const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("traceEvents") ||
        !json["traceEvents"].is_array()) {
      continue;
    }
    Lane& lane = lanes.emplace_back();
    lane.name = name.substr(0, name.size() - 5);
    std::string first_name;
    for (const Json& event : json["traceEvents"]) {
      if (StringOf(event, "ph") != "X") continue;
      const std::string what = StringOf(event, "name");
      // The next step begins as this one did.
      if (what == first_name || lane.events.size() == kMostEventsOfLane) break;
      if (first_name.empty()) first_name = what;
      const double begin = NumberOr(event, "ts", 0) / 1e6;
      lane.events.push_back({.name = what,
                             .kind = what.substr(0, what.find(' ')),
                             .begin = begin,
                             .end = begin + NumberOr(event, "dur", 0) / 1e6});
    }
  }
  return lanes;
}

std::string Samples(const RunFolder& run) {
  const auto names = ListDirectory(run.samples());
  if (!names.ok()) return "";
  std::vector<std::string> pictures;
  for (const std::string& name : *names) {
    if (absl::EndsWith(name, ".png")) pictures.push_back(name);
  }
  std::string text;
  // The newest of each kind: what is drawn, and where experts' routes went.
  std::map<std::string, size_t> of_kind;
  for (size_t i = pictures.size(); i > 0; --i) {
    const std::string kind =
        pictures[i - 1].substr(0, pictures[i - 1].rfind('_'));
    if (of_kind[kind]++ >= kMostSamples) continue;
    const auto png =
        ReadFile(run.samples() + "/" + pictures[i - 1], kMostBytes);
    if (!png.ok()) continue;
    text += fmt::format(
        "<figure><figcaption>{}</figcaption><img alt=\"samples\" "
        "src=\"data:image/png;base64,{}\"></figure>\n",
        EscapeHtml(pictures[i - 1]), absl::Base64Escape(*png));
  }
  return text;
}

// What looks for slow ranks and links found: each once, with the first and last
// step after which it was seen. Figures in it vary; who it is does not.
std::string Stragglers(const std::vector<Json>& steps) {
  struct Seen {
    int64_t first = 0, last = 0, times = 0;
    std::string text;
  };
  std::map<std::string, Seen> seen;
  for (const Json& step : steps) {
    if (!step.contains("stragglers") || !step["stragglers"].is_array()) {
      continue;
    }
    const auto number = static_cast<int64_t>(NumberOr(step, "step", 0));
    for (const Json& found : step["stragglers"]) {
      if (!found.is_string()) continue;
      const std::string text = found.get<std::string>();
      Seen& entry = seen[text.substr(0, text.rfind(')') + 1)];
      if (entry.times++ == 0) entry.first = number;
      entry.last = number;
      entry.text = text;
    }
  }
  std::string list;
  for (const auto& [who, entry] : seen) {
    list += fmt::format("<li>{}: {} times, after step {} to {}</li>\n",
                        EscapeHtml(entry.text), entry.times, entry.first,
                        entry.last);
  }
  return list.empty() ? "" : fmt::format("<ul>\n{}</ul>\n", list);
}

// A file as it is; empty where there is none.
std::string Verbatim(const std::string& title, const std::string& path) {
  const auto text = ReadFile(path, kMostBytes);
  if (!text.ok() || text->empty()) return "";
  return fmt::format("<h2>{}</h2>\n<pre>{}</pre>\n", EscapeHtml(title),
                     EscapeHtml(*text));
}

std::string Section(const std::string& title, const std::string& content) {
  return content.empty() ? "" : fmt::format("<h2>{}</h2>\n{}", title, content);
}

}  // namespace

absl::StatusOr<std::string> ReportOfRun(const RunFolder& run) {
  // Shares of experts are most of a long run's file, and none of the page.
  ASSIGN_OR_RETURN(const std::vector<Json> steps,
                   ReadMetrics(run.metrics(),
                               {"loss", "validation_loss", "grad_norm", "lr",
                                "step_s", "samples_per_s", "model_flops_per_s",
                                "compute_s", "exposed_s", "peak_bytes",
                                "skipped_samples", "stragglers"}));
  if (steps.empty()) return NotFound("{} has no step yet", run.metrics());
  const std::string name =
      std::filesystem::path(run.root()).lexically_normal().filename().string();
  const Curve loss = CurveOf(steps, "loss", "loss");
  std::vector<Curve> losses = {loss};
  if (steps.size() >= 2 * kWindows) losses.push_back(Smoothed(loss));
  const Curve validation = CurveOf(steps, "validation_loss", "held out");
  if (HasPoints(validation)) losses.push_back(validation);
  const std::vector<Lane> lanes = LanesOf(run);
  return kBegin +
         fmt::format(
             "<meta name=\"viewport\" content=\"width=device-width, "
             "initial-scale=1\"><title>{0}</title><style>{1}</style></head>"
             "<body>\n<h1>{0}</h1>\n",
             EscapeHtml(name), kStyle) +
         Summary(run, steps) +
         Section(
             "How it went",
             CurveChart("Loss", losses, /*log=*/true) +
                 CurveChart("Gradient norm",
                            {CurveOf(steps, "grad_norm", "norm")},
                            /*log=*/true) +
                 CurveChart("Learning rate", {CurveOf(steps, "lr", "rate")}) +
                 CurveChart("Samples per second",
                            {CurveOf(steps, "samples_per_s", "samples/s")})) +
         Section("Where the mean step's time went",
                 TimeChart(TimeParts(steps))) +
         Section("Memory", MemoryChart(MemoryParts(steps.back()))) +
         Section("Timeline of a step",
                 lanes.empty() ? "" : LaneChart("As measured", lanes)) +
         Section("Slow ranks and links", Stragglers(steps)) +
         Section("Samples", Samples(run)) +
         Verbatim("What happened", run.root() + "/launch.log") +
         Verbatim("Steps that went wrong", run.health_log()) +
         Verbatim("Job", run.job()) + Verbatim("Plan", run.plan()) +
         "</body></html>\n";
}

absl::Status CheckReplacesReport(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return absl::OkStatus();
  const std::string expected = kBegin;
  std::string begin(expected.size(), '\0');
  std::ifstream(path, std::ios::binary)
      .read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (begin == expected) return absl::OkStatus();
  return FailedPrecondition(
      "{}: found a file that is no report of this program; expected another "
      "name",
      path);
}

}  // namespace trireme
