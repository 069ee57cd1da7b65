// A run's steps: batches in, figures out, checkpoints in between.

#ifndef TRIREME_TRAINER_TRAINING_LOOP_H_
#define TRIREME_TRAINER_TRAINING_LOOP_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/batch.h"
#include "runtime/comm/control.h"
#include "scheduler/simulator/trace.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/checkpoints/saving.h"
#include "trainer/evaluation/evaluations.h"
#include "trainer/health/step_health.h"
#include "trainer/health/stragglers.h"
#include "trainer/job/batches.h"
#include "trainer/metrics/offload_figures.h"
#include "trainer/metrics/skipped_steps.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/prepare.h"
#include "trainer/run/run_log.h"
#include "trainer/run/train_options.h"

namespace trireme {

class TrainingLoop {
 public:
  struct End {
    int64_t last_step = 0;
    // As ordered, before all steps were done.
    bool stopped = false;
    // Somebody was ordered to stop, if only in the last step.
    bool ordered_to_stop = false;
    // On rank 0: unreadable ones, and the steps' seconds without the first,
    // which warms up.
    int64_t skipped_samples = 0;
    std::vector<double> step_seconds;
    // This rank's, of the steps that TrainOptions::trace asks for.
    std::vector<TraceEvent> trace;
    // On rank 0: the last of them, of the first pipeline; nothing predicted
    // where StepSimulator simulates nothing.
    Timelines timelines;
  };

  // All outlive the loop. `evaluations` have begun. `log`: rank 0's, null on
  // others. `done`: before the first step (GoOnInBatchesOf).
  TrainingLoop(const TrainOptions& options, const PreparedRun& run,
               RankModel& model, CheckpointSaver& saver,
               Evaluations& evaluations, RunLog* log,
               const TrainingProgress& done);

  // Collective over the world. Trains until all steps are done or somebody
  // orders to stop; the last checkpoint is written then. Errors: samples that
  // cannot be read, or that ranks do not agree on; a bad step that ends the job
  // (behind a checkpoint of what was before it) and replicas that differ
  // (HealthConfig); the last checkpoint cannot be written.
  absl::StatusOr<End> Run(Device& device);

  // Seconds for which training waited for checkpoints but the last.
  double waited_for_saves_s() const { return saving_.waited_s(); }

 private:
  // What this rank was ordered so far, and has not done.
  const Orders& Ordered();
  // Of the step after progress_, which it moves on.
  absl::Status Step(Device& device);
  // Of the step to come. The same status on every rank.
  absl::StatusOr<Batch> ReadBatch(Device& device);
  // What becomes of the step; an error where training cannot go on.
  absl::Status Judge(const GlobalStepResult& result);
  // Slow ranks and links, where it is time to look for them.
  void LookForStragglers(StepMetrics& metrics);
  // Of a sound one: tells where fp16 leaves it out.
  absl::Status NoteOverflow(const GlobalStepResult& result);
  // To the newest checkpoint, but not back in the data. False: there is none.
  absl::StatusOr<bool> RollBack();
  // Saves what was before the step, and returns what is wrong with it.
  absl::Status GiveUp();
  // Files that people watch may be out of reach for a while: told once until
  // it is over, when what was not written comes.
  void Write(const StepMetrics& metrics);

  bool leader() const { return log_ != nullptr; }
  int64_t nth_step() const { return progress_.step - first_step_ + 1; }

  const TrainOptions& options_;
  const PreparedRun& run_;
  RankModel& model_;
  CheckpointSaver& saver_;
  Evaluations& evaluations_;
  RunLog* const log_;
  const int64_t first_step_;
  const int64_t steps_;
  // After which the state came from a checkpoint, or is a new run's.
  int64_t restored_step_;
  TrainingProgress progress_;
  Control& control_;
  BatchReader reader_;
  StepMetricsCollector collector_;
  SkippedSteps skipped_steps_;
  StepHealth health_;
  StragglerWatch stragglers_;
  Saving saving_;
  Orders ordered_;
  bool log_in_reach_ = true;
  std::optional<OffloadAdvice> offload_advice_;  // of a plan with offload
  End end_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_TRAINING_LOOP_H_
