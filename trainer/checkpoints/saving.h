// When a run saves, to disk or to its hosts' memory, and what becomes of a
// checkpoint that cannot be written: the weights are as good as before, so that
// is told, and the next is tried in its turn.

#ifndef TRIREME_TRAINER_CHECKPOINTS_SAVING_H_
#define TRIREME_TRAINER_CHECKPOINTS_SAVING_H_

#include <chrono>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// Calls are collective, unless they say otherwise, and come in the same order
// on all ranks.
class Saving {
 public:
  // `saver` outlives it. `leader`: of world rank 0, which tells.
  Saving(CheckpointSaver& saver, const CheckpointConfig& config, bool leader);

  // By this rank's clock one is due. Not collective.
  bool DueByClock() const;

  // After a step. `ordered`: a checkpoint is due by a clock or somebody's
  // wish, beside those by steps; `busy`: some rank is at work on one.
  void AfterStep(const TrainingProgress& progress, bool ordered, bool busy);
  // After the last step: there is no next one to make up for it, hence it is
  // tried again, and an error is returned.
  absl::Status SaveLast(const TrainingProgress& progress);
  void WaitForEnd();
  // Before a run ends with an error that others may not know of
  // (CheckpointSaver::FinishAlone). Not collective.
  void EndAlone();

  // Seconds for which training waited before SaveLast.
  double waited_s() const { return waited_s_; }

 private:
  void Begin(const TrainingProgress& progress, CheckpointSaver::Place place);
  void Tell(const absl::Status& status, std::string_view now) const;

  CheckpointSaver& saver_;
  const int64_t every_;  // steps; 0: never
  const int64_t memory_every_;
  const std::chrono::minutes every_minutes_;
  const bool leader_;
  std::chrono::steady_clock::time_point last_ =
      std::chrono::steady_clock::now();
  int64_t step_ = 0;
  CheckpointSaver::Place place_ = CheckpointSaver::Place::kDisk;
  double waited_s_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_SAVING_H_
