#include "trainer/coordinator/metrics_text.h"

#include <cmath>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "fmt/format.h"

namespace trireme {
namespace {

using Labels = std::vector<std::pair<std::string_view, std::string>>;

std::string Value(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

// Samples of one metric come together, behind its description.
class Metric {
 public:
  Metric(std::string& text, std::string_view name, std::string_view help)
      : text_(text), name_(name) {
    text_ += fmt::format("# HELP trireme_{} {}\n# TYPE trireme_{} gauge\n",
                         name, help, name);
  }
  void Add(double value, const Labels& labels = {}) {
    std::string list;
    for (const auto& [key, label] : labels) {
      list += fmt::format(
          "{}{}=\"{}\"", list.empty() ? "" : ",", key,
          absl::StrReplaceAll(label,
                              {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}));
    }
    text_ += fmt::format("trireme_{}{} {}\n", name_,
                         list.empty() ? "" : fmt::format("{{{}}}", list),
                         Value(value));
  }

 private:
  std::string& text_;
  const std::string_view name_;
};

void AddStep(const StepFigures& step, std::string& text) {
  Metric(text, "step", "Steps done.").Add(static_cast<double>(step.step()));
  Metric(text, "loss", "Of the last step.").Add(step.loss());
  Metric(text, "gradient_norm", "Before clipping.").Add(step.gradient_norm());
  Metric(text, "learning_rate", "Of the last step.").Add(step.learning_rate());
  Metric(text, "step_seconds", "Of the slowest rank.").Add(step.step_s());
  Metric(text, "samples_per_second", "Of all ranks.").Add(step.samples_per_s());
  Metric(text, "left_out_steps", "Whose loss was bad, so far.")
      .Add(static_cast<double>(step.left_out_steps()));
  Metric(text, "roll_backs", "To a checkpoint, for a bad loss.")
      .Add(static_cast<double>(step.roll_backs()));
  Metric(text, "stragglers", "Ranks and links that keep others waiting.")
      .Add(step.stragglers_size());
  Metric(text, "model_flops_per_second",
         "Of all ranks, without what is computed again.")
      .Add(step.model_flops_per_s());
  Metric time(text, "time_seconds",
              "What the mean rank's step is made of, by cause.");
  time.Add(step.compute_s(), {{"cause", "compute"}});
  const std::map<std::string, double> exposed(step.exposed_s().begin(),
                                              step.exposed_s().end());
  for (const auto& [cause, seconds] : exposed) {
    time.Add(seconds, {{"cause", cause}});
  }
  Metric memory(text, "peak_bytes", "Of the rank that holds most.");
  const std::map<std::string, int64_t> peak(step.peak_bytes().begin(),
                                            step.peak_bytes().end());
  for (const auto& [category, bytes] : peak) {
    memory.Add(static_cast<double>(bytes), {{"category", category}});
  }
  Metric auxiliary(text, "auxiliary_loss", "What the loss contains, by name.");
  const std::map<std::string, double> losses(step.auxiliary_losses().begin(),
                                             step.auxiliary_losses().end());
  for (const auto& [name, loss] : losses) auxiliary.Add(loss, {{"name", name}});
}

}  // namespace

std::string MetricsText(const JobStatus& status) {
  std::string text;
  Metric(text, "age_seconds", "Since the launch.").Add(status.age_s());
  Metric(text, "ranks", "That have reported.").Add(status.ranks_size());
  const auto labels = [](const RankStatus& rank) -> Labels {
    return {{"rank", fmt::to_string(rank.report().rank())},
            {"host", rank.report().host()}};
  };
  Metric silent(text, "rank_silent_seconds", "Since its last report.");
  for (const RankStatus& rank : status.ranks()) {
    silent.Add(rank.silent_s(), labels(rank));
  }
  Metric compute(text, "rank_compute_seconds",
                 "Of the last step, in which it computed itself.");
  for (const RankStatus& rank : status.ranks()) {
    compute.Add(rank.report().own_compute_s(), labels(rank));
  }
  if (!status.steps().empty()) AddStep(*status.steps().rbegin(), text);
  return text;
}

}  // namespace trireme
