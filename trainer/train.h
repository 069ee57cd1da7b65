// The life of a training run: from a job file to a trained model in a run's
// folder. Every rank of the world calls Train with the same arguments.

#ifndef TRIREME_TRAINER_TRAIN_H_
#define TRIREME_TRAINER_TRAIN_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "trainer/run/train_options.h"

namespace trireme {

enum class RunEnd {
  kAllSteps,
  // As ordered, behind a checkpoint to go on from, of all steps where drawing
  // was broken off.
  kStopped,
};

// Collective. Errors are this rank's own: the caller prints the status and
// ends the whole job, since others may be waiting for this rank.
absl::StatusOr<RunEnd> Train(const TrainOptions& options,
                             CommunicatorFactory& factory);

struct RunDescription {
  // Model, FLOPs, plan, and the exact memory of each rank.
  std::string text;
  // An error if a rank would need more than the job's memory_limit_bytes.
  absl::Status fits;
};

// What the run would be on `ranks` ranks. Needs one process; nothing is trained
// or written.
absl::StatusOr<RunDescription> DescribeRun(const TrainOptions& options,
                                           int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_TRAIN_H_
