// Where a run begins: anew, at a checkpoint on disk, or at a copy in the
// memory of its hosts, whichever is the newest.

#ifndef TRIREME_TRAINER_CHECKPOINTS_START_POINT_H_
#define TRIREME_TRAINER_CHECKPOINTS_START_POINT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/checkpoints/memory_copies.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/train_options.h"

namespace trireme {

struct StartPoint {
  int64_t step = 0;
  // Its folder, as this rank finds it; nothing where the run starts anew.
  std::optional<std::string> checkpoint;
  // That is a copy in memory, and this.
  std::optional<MemoryCopy> copy;
};

// The run's copies in memory, if it makes or has made any; null where not.
// Collective.
absl::StatusOr<std::unique_ptr<MemoryCopies>> OpenMemoryCopies(
    const TrainOptions& options, const RunFolder& folder, const Job& job,
    CommunicatorFactory& factory, Control& control);

// What all ranks go on from. `job`: as resolved; `copies` may be null.
// Collective over `everyone`, of which `control` is. Errors: those of
// FindResumePoint, and of a rank that has another checkpoint.
absl::StatusOr<StartPoint> ChooseStart(const TrainOptions& options,
                                       const RunFolder& folder, const Job& job,
                                       MemoryCopies* copies,
                                       Communicator& everyone,
                                       Control& control);

// Gives the model the state that it starts with. Collective.
absl::StatusOr<TrainingProgress> LoadStart(RankModel& model, StartPoint& start,
                                           MemoryCopies* copies,
                                           const Init& init);

// What two copies take of this rank's share of its host's memory; 0 where the
// run makes none. `free_bytes`: what the model's device leaves of its limit,
// `home_limit`: of the host's, where that is another. Collective. Errors: there
// is not so much.
absl::StatusOr<int64_t> ReserveForCopies(RankModel& model, const Job& job,
                                         MemoryCopies* copies,
                                         int64_t free_bytes,
                                         int64_t home_limit);

// What rank 0 says of them before the first step; empty where there are none.
std::string CopiesText(const Job& job, const MemoryCopies* copies,
                       int64_t reserved);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_START_POINT_H_
