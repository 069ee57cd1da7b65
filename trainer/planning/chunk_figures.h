// What a chunk of some blocks holds and asks for in one microbatch: it is run
// on a dry device, whose arena, stream and communicators count.

#ifndef TRIREME_TRAINER_PLANNING_CHUNK_FIGURES_H_
#define TRIREME_TRAINER_PLANNING_CHUNK_FIGURES_H_

#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "models/family.h"
#include "runtime/device/stream.h"
#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/planning/recorded_collectives.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct ChunkFigures {
  // Without kernels and collectives, which follow. transient_bytes: above what
  // it keeps at that time, during forward and backward.
  PieceFigures memory;
  std::vector<Work> forward, backward_input, backward_weight;
  std::vector<RecordedCollective> collectives;
};

// How a chunk's blocks are divided, kept and put off.
struct ChunkMode {
  BlockSplit split;
  Plan::Recompute recompute = Plan::NONE;
  // Whether weight gradients are put off.
  bool deferred = false;
};

// Whether the whole model accepts its inputs, which its layers say when they
// run: of a setup that it does not, nothing can be recorded.
absl::Status CheckModel(const TrainingSetup& setup);

// Runs each chunk once and keeps what it found. Chunks of the same kinds of
// blocks are the same. All figures are affine in the microbatch's size, but for
// transient_bytes, which is the most of several that are, and for rounding to
// the arena's granule. So sizes between two that are run lie on the chord,
// which is never below what is held.
class ChunkRuns {
 public:
  // `expert_load`: as PieceRecorder's.
  explicit ChunkRuns(TrainingSetup setup, double expert_load = 1)
      : setup_(std::move(setup)),
        expert_load_(expert_load),
        shape_(setup_.family->Shape()) {}

  // With blocks [first, end).
  ChunkFigures Of(const ChunkMode& mode, int64_t first, int64_t end,
                  bool embedding, bool head);
  const ModelShape& shape() const { return shape_; }

 private:
  using Key = std::tuple<BlockSplit, int, bool,
                         std::vector<std::pair<int32_t, int64_t>>, bool, bool>;

  const ChunkFigures& Run(const ChunkMode& mode, int64_t first, int64_t end,
                          bool embedding, bool head);

  const TrainingSetup setup_;
  const double expert_load_;
  const ModelShape shape_;
  std::map<Key, ChunkFigures> runs_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_PLANNING_CHUNK_FIGURES_H_
