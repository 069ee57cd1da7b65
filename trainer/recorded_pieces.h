// A job's block, embedding and head as the planner costs them, recorded: a few
// chunks run for one microbatch on a dry device, whose arena and communicators
// count what they are asked for.

#ifndef TRIREME_TRAINER_RECORDED_PIECES_H_
#define TRIREME_TRAINER_RECORDED_PIECES_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/training_setup.h"

namespace trireme {

// Runs each split once and keeps what it found. Thread-safe.
class PieceRecorder {
 public:
  explicit PieceRecorder(TrainingSetup setup) : setup_(std::move(setup)) {}

  // `deferred`: weight gradients are put off (zero-bubble schedules).
  const ModelPieces& Record(const BlockSplit& split, Plan::Recompute recompute,
                            bool deferred);

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, int64_t, int, bool>;

  const ModelPieces& RecordLocked(const BlockSplit& split,
                                  Plan::Recompute recompute, bool deferred);

  const TrainingSetup setup_;
  std::mutex mutex_;
  std::map<Key, ModelPieces> recorded_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RECORDED_PIECES_H_
