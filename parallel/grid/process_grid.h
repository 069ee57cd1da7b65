// The grid of ranks: axes tp, cp, dp, pp (Megatron's default order, the
// leftmost varies fastest), and the placement of its points on the job's ranks.
//
//   rank of its stage = tp + TP·(cp + CP·dp)
//   logical rank      = rank of its stage + TP·CP·DP·pp
//   world rank        = placement[logical rank]
//
// Experts are laid out on a second grid over the ranks of a stage (Megatron's
// "parallel folding"), so that EP divides TP·CP·DP and adds no ranks:
//
//   rank of its stage = ep + EP·replica
//
// The ranks of one replica hold every expert of the stage once; those of one ep
// hold the same experts, over which gradients of experts are summed. Dense
// layers do not see the second grid. Without experts EP = 1.
//
// A partial pipeline's stages may have unlike numbers of ranks (GridSizes::
// stage_ranks): logical ranks are then numbered stage by stage, and the size of
// the dp axis is that of this rank's stage.
//
// Pure arithmetic: no communicators, no devices.

#ifndef TRIREME_PARALLEL_GRID_PROCESS_GRID_H_
#define TRIREME_PARALLEL_GRID_PROCESS_GRID_H_

#include <array>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/core/axis.h"

namespace trireme {

// The axes of the first grid, in the order of logical ranks.
inline constexpr std::array kGridAxes = {Axis::kTensor, Axis::kContext,
                                         Axis::kData, Axis::kPipeline};

// One number per axis: sizes of a grid, or a point of it.
struct GridPoint {
  std::array<int, kNumAxes> values{};

  int& operator[](Axis axis) { return values[static_cast<int>(axis)]; }
  int operator[](Axis axis) const { return values[static_cast<int>(axis)]; }
  friend bool operator==(const GridPoint&, const GridPoint&) = default;
};

struct GridSizes {
  int tp = 1;
  int cp = 1;
  int ep = 1;
  int dp = 1;
  int pp = 1;
  // Ranks of each of the pp stages where these are not all alike; tp = cp = ep
  // = 1, and dp is the first stage's. Empty: they are alike.
  std::vector<int> stage_ranks = {};
};

class ProcessGrid {
 public:
  // The grid as seen by `world_rank`. `placement[logical rank]` is a world
  // rank: a permutation of all of them, or empty for the identity. Errors: a
  // size below 1, an ep that does not divide a stage's ranks, stage_ranks that
  // do not fit the sizes, a grid of more than 2^20 ranks, a placement that is
  // no permutation, a world rank outside the grid.
  static absl::StatusOr<ProcessGrid> Create(const GridSizes& sizes,
                                            std::span<const int> placement,
                                            int world_rank);
  // The grid of one rank.
  ProcessGrid() : ProcessGrid(GridPoint{{1, 1, 1, 1, 1}}, {}, {0}, {0}, 0) {}

  int size(Axis axis) const { return sizes_[axis]; }
  int num_ranks() const { return static_cast<int>(placement_.size()); }
  // Every stage has as many ranks as any other.
  bool stages_alike() const { return stage_begin_.empty(); }

  // This rank's place.
  int world_rank() const { return placement_[logical_rank_]; }
  int logical_rank() const { return logical_rank_; }
  int coordinate(Axis axis) const { return point_[axis]; }
  bool is_first_stage() const { return coordinate(Axis::kPipeline) == 0; }
  bool is_last_stage() const {
    return coordinate(Axis::kPipeline) == size(Axis::kPipeline) - 1;
  }

  // Any rank's place.
  GridPoint PointOf(int logical_rank) const;
  int LogicalRankOf(const GridPoint& point) const;
  int WorldRankOf(int logical_rank) const;
  int LogicalRankOfWorldRank(int world_rank) const;

  // The world rank at this rank's point but for `axis`. The coordinate wraps
  // round, so that coordinate(axis) + 1 and − 1 are the neighbours on a ring.
  int Neighbour(Axis axis, int coordinate) const;

  // World ranks of the group that shares this rank's coordinates on all axes of
  // the first grid but the given ones, in the order of their logical ranks.
  std::vector<int> Group(std::span<const Axis> axes) const;
  // Which of the copies of a stage's experts this rank has a part of.
  int expert_replica() const {
    return logical_rank_ % stage_size() / sizes_[Axis::kExpert];
  }
  // The ranks of this rank's stage that hold every expert once with it, and
  // those that hold the same experts.
  std::vector<int> ExpertGroup() const;
  std::vector<int> ExpertReplicas() const;

  // "tp 2 x dp 2 (4 ranks)"; axes of size 1 are left out, as is ep.
  std::string ToString() const;

 private:
  // Ranks of a stage; 1 where stages are unlike, which have no experts.
  int stage_size() const {
    return sizes_[Axis::kTensor] * sizes_[Axis::kContext] *
           (stages_alike() ? sizes_[Axis::kData] : 1);
  }

  ProcessGrid(GridPoint sizes, std::vector<int> stage_begin,
              std::vector<int> placement, std::vector<int> logical_ranks,
              int logical_rank);

  GridPoint sizes_;
  // Where stages are unlike: the first logical rank of each, then the number
  // of all.
  std::vector<int> stage_begin_;
  // placement_[logical] = world; logical_ranks_ is its inverse.
  std::vector<int> placement_;
  std::vector<int> logical_ranks_;
  int logical_rank_ = 0;
  GridPoint point_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_PROCESS_GRID_H_
