#include "trainer/coordinator/status_text.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/median.h"
#include "runtime/core/timeouts.h"
#include "runtime/device/arena.h"
#include "runtime/telemetry/progress.h"

namespace trireme {
namespace {

// Of a curve of losses, and of a step's share of a line.
constexpr size_t kCurveColumns = 64;
// Beyond this many characters the smallest shares are left out.
constexpr size_t kMostShares = 58;
constexpr double kNamedAfterS =
    std::chrono::duration<double>(Timeouts().named).count();
// A rank that computes longer than the median by this share keeps others
// waiting.
constexpr double kStraggles = 1.1;
constexpr size_t kMostNamed = 4;
// Of a line that says what is wrong.
constexpr size_t kLineColumns = 70;

// Eight heights from `lowest` to `highest`.
std::string_view Bar(double value, double lowest, double highest) {
  constexpr std::array<std::string_view, 8> kBars = {"▁", "▂", "▃", "▄",
                                                     "▅", "▆", "▇", "█"};
  const double height =
      highest > lowest ? (value - lowest) / (highest - lowest) : 0;
  return kBars[std::clamp(static_cast<int>(height * 8), 0, 7)];
}

std::string Curve(const JobStatus& status) {
  std::vector<double> losses;
  // A loss that is no number has no height.
  for (const StepFigures& step : status.steps()) {
    if (std::isfinite(step.loss())) losses.push_back(step.loss());
  }
  const size_t columns = std::min(losses.size(), kCurveColumns);
  std::vector<double> means;
  for (size_t i = 0; i < columns; ++i) {
    const size_t begin = i * losses.size() / columns;
    const size_t end = (i + 1) * losses.size() / columns;
    double sum = 0;
    for (size_t j = begin; j < end; ++j) sum += losses[j];
    means.push_back(sum / static_cast<double>(end - begin));
  }
  std::string text;
  if (means.empty()) return text;
  const auto [lowest, highest] =
      std::minmax_element(means.begin(), means.end());
  for (const double mean : means) text += Bar(mean, *lowest, *highest);
  return text;
}

// "compute 81%, tp 6%", the largest first, without what takes less than half
// a percent.
std::string Shares(const StepFigures& step) {
  std::vector<std::pair<double, std::string>> parts = {
      {step.compute_s(), "compute"}};
  double sum = step.compute_s();
  for (const auto& [cause, seconds] : step.exposed_s()) {
    parts.emplace_back(seconds, cause);
    sum += seconds;
  }
  std::sort(parts.rbegin(), parts.rend());
  std::string text;
  for (const auto& [seconds, cause] : parts) {
    const double percent = sum > 0 ? 100 * seconds / sum : 0;
    if (percent < 0.5 || text.size() > kMostShares) continue;
    text +=
        fmt::format("{}{} {:.0f}%", text.empty() ? "" : ", ", cause, percent);
  }
  return text;
}

std::string RankName(const RankReport& report) {
  return fmt::format("rank {} ({}, process {})", report.rank(), report.host(),
                     report.process());
}

// Lines on ranks that are missing, have failed, are silent or slow.
std::string RanksText(const JobStatus& status) {
  std::set<std::string> hosts;
  std::vector<double> seconds;
  int64_t world = 0;
  for (const RankStatus& rank : status.ranks()) {
    hosts.insert(rank.report().host());
    world = rank.report().world_size();
    if (rank.report().own_compute_s() > 0) {
      seconds.push_back(rank.report().own_compute_s());
    }
  }
  std::string text =
      fmt::format("ranks   {} of {} on {} host{}\n", status.ranks_size(), world,
                  hosts.size(), hosts.size() == 1 ? "" : "s");
  const double median = Median(seconds);
  size_t named = 0;
  for (const RankStatus& rank : status.ranks()) {
    const RankReport& report = rank.report();
    std::string what;
    if (report.state() == RankReport::FAILED) {
      what = "failed: " + report.error();
    } else if (report.state() != RankReport::ENDED &&
               rank.silent_s() > kNamedAfterS) {
      what = fmt::format("silent for {:.0f} s", rank.silent_s());
    } else if (seconds.size() > 1 &&
               report.own_compute_s() > kStraggles * median) {
      what = fmt::format("computes {:.3g} s a step, the median {:.3g} s",
                         report.own_compute_s(), median);
    }
    if (what.empty()) continue;
    if (++named > kMostNamed) continue;
    text += fmt::format("        {}\n          {}\n", RankName(report), what);
  }
  if (named > kMostNamed) {
    text += fmt::format("        and {} more\n", named - kMostNamed);
  }
  return text;
}

// "of it   balance_loss 1.02, z_loss 0.3", as much as fits.
std::string AuxiliaryText(const StepFigures& step) {
  std::string text;
  const std::map<std::string, double> sorted(step.auxiliary_losses().begin(),
                                             step.auxiliary_losses().end());
  for (const auto& [name, loss] : sorted) {
    if (text.size() > kMostShares) break;
    text += fmt::format("{}{} {:.4g}", text.empty() ? "" : ", ", name, loss);
  }
  return fmt::format("of it   {}\n", text);
}

// Nothing without experts.
std::string ExpertsText(const StepFigures& step) {
  if (!step.has_experts()) return "";
  const ExpertFigures& experts = step.experts();
  std::string text = fmt::format(
      "experts {:.24}: expert {} has {:.3g} times "
      "the mean's routes",
      experts.layer(), experts.expert(), experts.load());
  if (experts.dropped_share() > 0) {
    text += fmt::format("\n        {:.2g} % of all routes dropped",
                        100 * experts.dropped_share());
  }
  return text + "\n";
}

// Of all ranks together; nothing where one's is not known.
std::optional<double> PeakOf(const JobStatus& status) {
  double sum = 0;
  for (const RankStatus& rank : status.ranks()) {
    const RankReport& report = rank.report();
    if (report.peak_flops() <= 0 ||
        report.world_size() != status.ranks_size()) {
      return std::nullopt;
    }
    sum += report.peak_flops();
  }
  return sum;
}

// As many as it takes, below a title.
std::string Lines(const std::string& text) {
  std::string lines;
  for (size_t begin = 0; begin < text.size(); begin += kLineColumns) {
    lines += fmt::format("        {}\n", text.substr(begin, kLineColumns));
  }
  return lines;
}

// Nothing where no step has gone wrong.
std::string HealthText(const StepFigures& step) {
  if (step.trouble().empty() && step.left_out_steps() == 0) return "";
  std::string text = fmt::format(
      "health  {} steps left out, {} times back to a checkpoint; the last:\n",
      step.left_out_steps(), step.roll_backs());
  return text + Lines(step.trouble());
}

// Nothing where none was found.
std::string StragglersText(const StepFigures& step) {
  if (step.stragglers().empty()) return "";
  std::string text = "slow    what keeps others waiting, as last looked for:\n";
  for (const std::string& straggler : step.stragglers()) {
    text += Lines(straggler);
  }
  return text;
}

std::string_view StateText(const JobStatus& status) {
  // Rank 0's, which is the last to end.
  switch (status.ranks(0).report().state()) {
    case RankReport::TRAINING:
      return status.orders().stops() > 0 ? "stopping" : "training";
    case RankReport::ENDED:
      return "ended";
    case RankReport::FAILED:
      return "failed";
    default:
      return "preparing";
  }
}

}  // namespace

std::string StatusText(const JobStatus& status,
                       std::optional<double> peak_flops) {
  std::string text = fmt::format("run     {}, launched {} ago\n",
                                 status.folder(), DurationText(status.age_s()));
  if (status.ranks().empty())
    return text + "state   no rank has reported yet\n";
  const RankReport& first = status.ranks(0).report();
  text += fmt::format("state   {}", StateText(status));
  if (status.steps().empty()) return text + "\n" + RanksText(status);
  const StepFigures& last = *status.steps().rbegin();
  const int64_t left = first.steps() - last.step();
  text += fmt::format(
      ", step {} of {} ({:.0f} %), {} left\n", last.step(), first.steps(),
      100.0 * static_cast<double>(last.step()) /
          static_cast<double>(std::max<int64_t>(first.steps(), 1)),
      DurationText(static_cast<double>(left) * last.step_s()));
  text += fmt::format(
      "loss    {:.5g}, gradient norm {:.4g}, learning rate {:.3g}\n",
      last.loss(), last.gradient_norm(), last.learning_rate());
  text += fmt::format("        {}\n", Curve(status));
  if (!last.auxiliary_losses().empty()) text += AuxiliaryText(last);
  const std::optional<double> peak =
      peak_flops.has_value() ? *peak_flops * std::max(1, first.world_size())
                             : PeakOf(status);
  text += fmt::format(
      "speed   {:.4g} s a step, {:.4g} samples/s, {:.4g} TFLOP/s{}\n",
      last.step_s(), last.samples_per_s(), last.model_flops_per_s() / 1e12,
      peak.has_value()
          ? fmt::format(", MFU {:.1f} % of {:.4g} TFLOP/s",
                        100 * last.model_flops_per_s() / *peak, *peak / 1e12)
          : "");
  text += fmt::format("time    {}\n", Shares(last));
  text += ExpertsText(last);
  int64_t bytes = 0;
  for (const auto& [category, held] : last.peak_bytes()) bytes += held;
  text += fmt::format("memory  at most {} on a rank\n", BytesText(bytes));
  return text + HealthText(last) + StragglersText(last) + RanksText(status);
}

}  // namespace trireme
