// A job's block, embedding and head as the planner costs them, recorded: by how
// much chunks differ that have one and have it not.

#ifndef TRIREME_TRAINER_PLANNING_RECORDED_PIECES_H_
#define TRIREME_TRAINER_PLANNING_RECORDED_PIECES_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/planning/chunk_figures.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// Records each split once. Thread-safe.
class PieceRecorder {
 public:
  // `expert_load`: rows of the rank whose experts have most, over those of even
  // routing.
  explicit PieceRecorder(TrainingSetup setup, double expert_load = 1)
      : chunks_(std::move(setup), expert_load) {}

  // `deferred`: weight gradients are put off (zero-bubble schedules).
  const ModelPieces& Record(const BlockSplit& split, Plan::Recompute recompute,
                            bool deferred);

 private:
  using Key = std::tuple<BlockSplit, int, bool>;

  const ModelPieces& RecordLocked(const BlockSplit& split,
                                  Plan::Recompute recompute, bool deferred);

  std::mutex mutex_;
  ChunkRuns chunks_;
  std::map<Key, ModelPieces> recorded_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_PLANNING_RECORDED_PIECES_H_
