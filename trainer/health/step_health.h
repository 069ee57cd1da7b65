// The health of a training run (HealthConfig): steps that go wrong, and what
// several ranks hold alike.

#ifndef TRIREME_TRAINER_HEALTH_STEP_HEALTH_H_
#define TRIREME_TRAINER_HEALTH_STEP_HEALTH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/batch.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/health/step_judge.h"
#include "trainer/job/job.pb.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// Calls are collective over the world, unless they say otherwise, and have the
// same result on every rank. What happens is told on rank 0: logged, and
// written to the run's health.log.
class StepHealth {
 public:
  // The model outlives it. Not collective.
  StepHealth(const HealthConfig& config, RankModel& model, RunFolder folder);

  // Of the steps up to `last_step`, what metrics.jsonl says: a run that goes on
  // judges as if it had never stopped.
  absl::Status Recall(int64_t last_step);

  // RankModel::Step, which updates nothing unless the verdict is kSound. Where
  // the step is not finite, says by which tensor.
  absl::StatusOr<GlobalStepResult> Step(const Batch& batch,
                                        const StepOptions& options);
  // On the last step. Not collective, as what follows.
  StepJudge::Verdict verdict() const { return verdict_; }
  // What was wrong with the last bad step.
  const absl::Status& trouble() const { return trouble_; }
  void AddTo(StepMetrics& metrics) const;
  // "the state after step 20 is saved", added to what was wrong.
  void Tell(std::string_view outcome) const;

  // After a sound step, where it is time for that: error of CompareReplicas.
  absl::Status CheckReplicas(int64_t step);

  // Brings back the newest whole checkpoint, where there is one. Errors: it
  // cannot be loaded, and the model's state is none.
  absl::StatusOr<std::optional<TrainingProgress>> RollBack();

 private:
  const HealthConfig config_;
  RankModel& model_;
  const RunFolder folder_;
  const bool leader_;
  StepJudge judge_;
  StepJudge::Verdict verdict_ = StepJudge::Verdict::kSound;
  absl::Status trouble_;
  int64_t roll_backs_ = 0;
  // After which replicas were last found alike; 0: never.
  int64_t alike_after_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_HEALTH_STEP_HEALTH_H_
