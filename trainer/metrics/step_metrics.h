// The figures of one training step over all ranks: one line of metrics.jsonl.

#ifndef TRIREME_TRAINER_METRICS_STEP_METRICS_H_
#define TRIREME_TRAINER_METRICS_STEP_METRICS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "parallel/grid/communicators.h"
#include "runtime/core/processors.h"
#include "runtime/device/device.h"
#include "scheduler/simulator/trace.h"
#include "trainer/metrics/offload_figures.h"
#include "trainer/metrics/offload_meter.h"
#include "trainer/metrics/simulated_step.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

struct StepMetrics {
  int64_t step = 0;
  double loss = 0;
  // What it contains beside the objective's ("loss"), by name.
  std::map<std::string, double> auxiliary_losses;
  // By layer, the share of its routes that each of its experts has.
  std::map<std::string, std::vector<double>> expert_shares;
  // Where experts have capacities, the share of all routes that they dropped.
  std::optional<double> dropped_share;
  // Of rows to experts that went to a node once, the copies' (all ranks).
  int64_t deduplicated_bytes = 0;
  // Of samples that are held out, after the step, where they were measured.
  std::optional<double> validation_loss;
  // Where pictures come in several sizes, the same by size ("HxW").
  std::map<std::string, double> validation_losses;
  // Of a model that names classes: the share of samples whose class it names
  // rightly, of the step's before it and of those that are held out.
  std::optional<double> accuracy;
  std::optional<double> validation_accuracy;
  // Of a model of sequences: e to the objective's loss, a mean over tokens.
  std::optional<double> perplexity;
  double gradient_norm = 0;
  double learning_rate = 0;
  // With fp16: the scale of the loss, and the steps left out so far.
  std::optional<double> loss_scale;
  int64_t skipped_steps = 0;
  // Of HealthConfig: whether this step was left out, how many were in the run
  // so far, how often this process has gone back to a checkpoint, and what was
  // wrong with the last bad step.
  bool left_out = false;
  int64_t left_out_steps = 0;
  int64_t roll_backs = 0;
  std::string trouble;
  // Ranks and links that keep others waiting, as found in the last look, and
  // whether that was after this step.
  std::vector<std::string> stragglers;
  bool looked_for_stragglers = false;
  // Unreadable ones so far.
  int64_t skipped_samples = 0;
  // Where pictures come in several sizes: that of this step's, and the tokens
  // of each of its samples.
  std::optional<PictureSize> picture_size;
  int64_t sample_tokens = 0;
  // Where dp > 1: how many more tokens the replica with the most has in its
  // samples than one has on average (0.05: 5 % more), without padding where a
  // field counts it.
  std::optional<double> token_imbalance;
  // Of the slowest rank, batch reading included.
  double step_s = 0;
  int64_t samples = 0;
  // ModelTrainingFlops of all samples; of a partial pipeline's blocks those
  // that microbatches come to.
  double model_flops = 0;
  // Of the rank that holds most, by category.
  MemoryByCategory peak_bytes{};
  // Mean over ranks of the seconds spent in forward and backward, without the
  // collectives' waits inside; with exposed_s it makes up the mean step.
  double compute_s = 0;
  // This rank's.
  double own_compute_s = 0;
  // Mean over ranks of the seconds that each cause kept a rank from computing:
  // "data", "tp", "cp", "ep", "bubble" (what the schedule implies if messages
  // took no time), "pp" (the rest of the wait for other stages), "dp",
  // "optimizer".
  std::map<std::string, double> exposed_s;
  // The step that the simulator gives for the measured costs of its
  // instructions (simulated_step.h); none for a partial pipeline, nor where it
  // was not asked.
  std::optional<double> simulated_s;
  // Of a plan with offload, over all ranks.
  std::optional<OffloadFigures> offload;

  double samples_per_s() const {
    return step_s > 0 ? static_cast<double>(samples) / step_s : 0;
  }
  double model_flops_per_s() const {
    return step_s > 0 ? model_flops / step_s : 0;
  }
};

// {"step": .., "loss": .., auxiliary losses, "grad_norm": .., "lr": ..,
// "step_s": ..,
//  "samples_per_s": .., "model_flops_per_s": .., "skipped_samples": ..,
//  "peak_bytes": {..}, "compute_s": .., "exposed_s": {..}}, "simulated_s" and
// "validation_loss" where there is one, with "validation_loss_by_size" where
// pictures come in several, of sequences "perplexity", of classes "accuracy"
// and "validation_accuracy", with experts
// "expert_shares", where those drop routes "dropped_share", where rows go to
// nodes once "deduplicated_bytes", with fp16 "loss_scale" and "skipped_steps",
// and once there are any "left_out_steps" and "roll_backs"; "left_out": true of
// a step that was; after a look for them "stragglers"; where pictures come in
// several sizes "picture_size" ("HxW") and "sample_tokens"; with several
// replicas "token_imbalance"; with offload "offload" (offload_figures.h).
nlohmann::ordered_json ToJson(const StepMetrics& metrics);

// Tags and values for TensorBoard.
std::vector<std::pair<std::string, double>> ToScalars(
    const StepMetrics& metrics);

// Gathers a step's figures from all ranks, in a few small reductions.
class StepMetricsCollector {
 public:
  // Collective over the world. `model` outlives the collector.
  explicit StepMetricsCollector(RankModel& model,
                                const ProcessorShare& share = {});

  // StepOptions::processor_threads of the steps whose figures it gathers.
  int processor_threads() const { return simulator_.processor_threads(); }

  // Collective over the world; complete on rank 0. data_s: this rank's wait for
  // its batch; step_s: the whole step; skipped_samples: 0 but on the rank
  // that counts for all. `simulate`: also what the
  // simulator says of the step, which takes a while for many microbatches;
  // without it there is no simulated_s, and the bubble is as long as in the
  // last simulated step. `predicted`: gets the simulated step's events, on rank
  // 0 and where there is one.
  StepMetrics Collect(const GlobalStepResult& result, double data_s,
                      double step_s, int64_t skipped_samples,
                      bool simulate = true,
                      std::vector<TraceEvent>* predicted = nullptr);

  // What has been communicated since the last step is of none.
  void ForgetExposed();

 private:
  // Seconds of each cause since the last call, from the communicators.
  double ExposedSince(Cause cause, double& before) const;
  // Bytes since the last call that no rank had to be sent.
  double SavedSince();

  RankModel& model_;
  StepSimulator simulator_;
  const std::vector<double> flops_per_sample_;  // by bucket
  std::optional<OffloadMeter> offload_;
  double exposed_tensor_before_ = 0;
  double exposed_context_before_ = 0;
  double exposed_experts_before_ = 0;
  int64_t saved_before_ = 0;
  double bubble_s_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_STEP_METRICS_H_
