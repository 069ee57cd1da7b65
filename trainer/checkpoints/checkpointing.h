// A run's state in a checkpoint folder: logical tensors (weights, their
// average, both Adam moments) as safetensors and the manifest. Nothing in it
// depends on the grid: a run may go on under another plan. Of a model that
// trains in part they are of that part (trained_part.h); the rest is read again
// from where it started.

#ifndef TRIREME_TRAINER_CHECKPOINTS_CHECKPOINTING_H_
#define TRIREME_TRAINER_CHECKPOINTS_CHECKPOINTING_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/bucket_order.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// How far a run has come.
struct TrainingProgress {
  int64_t step = 0;
  // In all steps: the position of the next sample in the order of consumption.
  int64_t consumed_samples = 0;
  // Of data in buckets, of how many samples the batches were, on which their
  // order depends (models/data/bucket_order.h). Empty of other data.
  std::vector<BatchSpan> batches;
};

// From here on the job's batches are of `global_batch` samples, in buckets.
// Errors: nothing says of how many those before were, and this many cannot be.
absl::Status GoOnInBatchesOf(int64_t global_batch, TrainingProgress& progress);

// What a checkpoint's manifest says beside its files, for LoadCheckpoint: the
// loss scaler's state, how many steps were left out, what is trained, and what
// of; of what size batches in buckets were.
std::map<std::string, std::string> CheckpointMetadata(
    RankModel& model, const TrainingProgress& progress);

// Reads this rank's parts from a checkpoint that was found whole
// (FindWholeCheckpoint) and returns its progress. Collective over the world;
// every rank reads the bytes of its own parts itself.
absl::StatusOr<TrainingProgress> LoadCheckpoint(RankModel& model,
                                                const std::string& checkpoint);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_CHECKPOINTING_H_
