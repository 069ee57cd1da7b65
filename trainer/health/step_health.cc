#include "trainer/health/step_health.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "parallel/parameters/delayed_scaling.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/telemetry/event_log.h"
#include "runtime/telemetry/metrics_log.h"
#include "trainer/health/non_finite.h"
#include "trainer/health/replicas.h"

namespace trireme {
namespace {

using Json = nlohmann::json;
using Verdict = StepJudge::Verdict;

// Of the last sound steps up to `last_step`, oldest first.
absl::StatusOr<std::vector<double>> SoundLosses(const RunFolder& folder,
                                                int64_t last_step) {
  std::vector<double> losses;
  const absl::Status read =
      ReadMetricsBackwards(folder.metrics(), [&](const Json& line) {
        if (line["step"].get<int64_t>() <= last_step &&
            !line.contains("left_out") && line.contains("loss") &&
            line["loss"].is_number()) {
          losses.push_back(line["loss"].get<double>());
        }
        return losses.size() < StepJudge::kMostLosses;
      });
  if (!absl::IsNotFound(read)) RETURN_IF_ERROR(read);
  std::reverse(losses.begin(), losses.end());
  return losses;
}

}  // namespace

StepHealth::StepHealth(const HealthConfig& config, RankModel& model,
                       RunFolder folder)
    : config_(config),
      model_(model),
      folder_(std::move(folder)),
      leader_(model.context().communicators().control().rank() == 0),
      judge_(config, model.setup().loss_scale.enabled) {}

absl::Status StepHealth::Recall(int64_t last_step) {
  if (config_.spike_factor() == 0) return absl::OkStatus();
  Control& control = model_.context().communicators().control();
  absl::StatusOr<std::vector<double>> losses = std::vector<double>();
  if (leader_) losses = SoundLosses(folder_, last_step);
  RETURN_IF_ERROR(control.Agree(losses.status(), "losses before"));
  // The shortest text that reads back as the same bits.
  std::string text = Json(*losses).dump();
  control.Broadcast(text, "losses before");
  judge_.Remember(Json::parse(text).get<std::vector<double>>());
  return absl::OkStatus();
}

absl::StatusOr<GlobalStepResult> StepHealth::Step(const Batch& batch,
                                                  const StepOptions& options) {
  const LossScalerState scaler = model_.loss_scaler().state();
  DelayedScaling* const scaling = model_.delayed_scaling();
  const Float8Histories scales =
      scaling != nullptr ? scaling->histories() : Float8Histories();
  absl::Status trouble;
  StepOptions judged = options;
  judged.admits = [&](double loss, double gradient_norm) {
    trouble = judge_.Check(options.step, loss, gradient_norm);
    return trouble.ok() &&
           (!options.admits || options.admits(loss, gradient_norm));
  };
  ASSIGN_OR_RETURN(const GlobalStepResult result, model_.Step(batch, judged));
  verdict_ = judge_.Decide(options.step, result.loss, trouble);
  if (verdict_ == Verdict::kSound) return result;
  model_.loss_scaler().set_state(scaler);
  if (scaling != nullptr) scaling->set_histories(scales);
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    ASSIGN_OR_RETURN(const std::string found,
                     FindNonFinite(model_, batch, options));
    trouble = StatusOf(trouble.code(), "{}; {}", MessageOf(trouble), found);
  }
  trouble_ = trouble;
  if (verdict_ == Verdict::kLeaveOut) {
    model_.set_left_out_steps(model_.left_out_steps() + 1);
    Tell("it is left out");
  }
  return result;
}

void StepHealth::AddTo(StepMetrics& metrics) const {
  metrics.left_out = verdict_ == Verdict::kLeaveOut;
  metrics.left_out_steps = model_.left_out_steps();
  metrics.roll_backs = roll_backs_;
  if (!trouble_.ok()) metrics.trouble = MessageOf(trouble_);
}

void StepHealth::Tell(std::string_view outcome) const {
  if (!leader_) return;
  const std::string text = fmt::format("{}; {}", MessageOf(trouble_), outcome);
  LOG(WARNING) << text;
  AddEvent(folder_.health_log(), text);
}

absl::Status StepHealth::CheckReplicas(int64_t step) {
  const int64_t every = config_.replica_hash_every();
  if (every == 0 || step % every != 0) return absl::OkStatus();
  const absl::Status alike = CompareReplicas(model_);
  if (alike.ok()) {
    alike_after_ = step;
    return alike;
  }
  const std::string last =
      alike_after_ > 0
          ? fmt::format("they were alike after step {}", alike_after_)
          : "they were not compared before";
  const absl::Status status =
      StatusOf(alike.code(),
               "step {}: {}; {}. Go on from a checkpoint before it, on "
               "other machines",
               step, MessageOf(alike), last);
  if (leader_) AddEvent(folder_.health_log(), MessageOf(status));
  return status;
}

absl::StatusOr<std::optional<TrainingProgress>> StepHealth::RollBack() {
  Communicators& communicators = model_.context().communicators();
  Control& control = communicators.control();
  std::string path, reason;
  if (leader_) {
    const auto found = FindWholeCheckpoint(folder_.checkpoints());
    if (found.ok()) {
      path = found->path;
    } else {
      reason = MessageOf(found.status());
    }
  }
  // Rank 0 reads all of a checkpoint, which takes what it takes.
  AwaitAllPatiently(communicators.world(), "rolling back");
  control.Broadcast(path, "rolling back");
  if (path.empty()) {
    Tell("there is no checkpoint to go back to: " + reason);
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(const TrainingProgress progress,
                   LoadCheckpoint(model_, path));
  RETURN_IF_ERROR(Recall(progress.step));
  ++roll_backs_;
  Tell(fmt::format("goes back to step {}, and on with the samples behind",
                   progress.step));
  return progress;
}

}  // namespace trireme
