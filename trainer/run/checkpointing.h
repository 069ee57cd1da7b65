// A run's state in a checkpoint folder: logical tensors (weights, their
// average, both Adam moments) as safetensors and the manifest. Nothing in it
// depends on the grid: a run may go on under another plan. Of a model that
// trains in part they are of that part (trained_part.h); the rest is read again
// from where it started.

#ifndef TRIREME_TRAINER_RUN_CHECKPOINTING_H_
#define TRIREME_TRAINER_RUN_CHECKPOINTING_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/rank_model.h"

namespace trireme {

// How far a run has come.
struct TrainingProgress {
  int64_t step = 0;
  // In all steps: the position of the next sample in the order of consumption.
  int64_t consumed_samples = 0;
};

// Writes the state at `progress`. Collective over the world; rank 0 writes.
// The same status on every rank. `keep`: newest checkpoints kept, 0 = all.
absl::Status SaveCheckpoint(RankModel& model, const std::string& folder,
                            const TrainingProgress& progress, int64_t keep);

// Reads this rank's parts from a checkpoint that was found whole
// (FindWholeCheckpoint) and returns its progress. Collective over the world;
// every rank reads the files itself.
absl::StatusOr<TrainingProgress> LoadCheckpoint(RankModel& model,
                                                const std::string& checkpoint);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_CHECKPOINTING_H_
