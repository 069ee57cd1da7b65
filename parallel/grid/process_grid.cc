#include "parallel/grid/process_grid.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxRanks = 1 << 20;

// The first rank of each stage, then the number of all.
absl::StatusOr<std::vector<int>> StageBegins(const GridSizes& sizes) {
  std::vector<int> begins;
  if (sizes.stage_ranks.empty()) return begins;
  if (static_cast<int>(sizes.stage_ranks.size()) != sizes.pp ||
      sizes.stage_ranks[0] != sizes.dp || sizes.tp * sizes.cp * sizes.ep != 1) {
    return InvalidArgument(
        "grid: found {} stages of which the first has {} ranks, expected pp {} "
        "of which it has dp {}, with tp, cp and ep 1",
        sizes.stage_ranks.size(), sizes.stage_ranks[0], sizes.pp, sizes.dp);
  }
  int64_t ranks = 0;
  for (const int of_stage : sizes.stage_ranks) {
    begins.push_back(static_cast<int>(ranks));
    ranks += of_stage;
    if (of_stage < 1 || ranks > kMaxRanks) {
      return InvalidArgument(
          "grid: found a stage of {} ranks, expected at least 1 and no more "
          "than {} in all",
          of_stage, kMaxRanks);
    }
  }
  begins.push_back(static_cast<int>(ranks));
  return begins;
}

}  // namespace

absl::StatusOr<ProcessGrid> ProcessGrid::Create(const GridSizes& sizes,
                                                std::span<const int> placement,
                                                int world_rank) {
  const GridPoint extents{{sizes.tp, sizes.cp, sizes.ep, sizes.dp, sizes.pp}};
  int64_t ranks = 1;
  for (Axis axis : kAllAxes) {
    if (extents[axis] < 1) {
      return InvalidArgument("grid: {} is {}, expected at least 1",
                             AxisName(axis), extents[axis]);
    }
    if (axis == Axis::kExpert) continue;
    ranks *= extents[axis];
    if (ranks > kMaxRanks) {
      return InvalidArgument("grid: more than {} ranks", kMaxRanks);
    }
  }
  if (ranks / extents[Axis::kPipeline] % sizes.ep != 0) {
    return InvalidArgument(
        "grid: ep is {}, expected a divisor of the {} ranks of a stage",
        sizes.ep, ranks / extents[Axis::kPipeline]);
  }

  ASSIGN_OR_RETURN(std::vector<int> stage_begin, StageBegins(sizes));
  if (!stage_begin.empty()) ranks = stage_begin.back();
  std::vector<int> placed(placement.begin(), placement.end());
  if (placed.empty()) {
    placed.resize(ranks);
    std::iota(placed.begin(), placed.end(), 0);
  }
  if (static_cast<int64_t>(placed.size()) != ranks) {
    return InvalidArgument(
        "placement: {} entries, expected one for each of the grid's {} ranks",
        placed.size(), ranks);
  }
  std::vector<int> logical_ranks(ranks, -1);
  for (int logical = 0; logical < ranks; ++logical) {
    const int world = placed[logical];
    if (world < 0 || world >= ranks) {
      return InvalidArgument("placement: entry {} is rank {}, expected 0 to {}",
                             logical, world, ranks - 1);
    }
    if (logical_ranks[world] != -1) {
      return InvalidArgument("placement: rank {} is at entries {} and {}",
                             world, logical_ranks[world], logical);
    }
    logical_ranks[world] = logical;
  }
  if (world_rank < 0 || world_rank >= ranks) {
    return InvalidArgument("grid: rank {} is not one of its {} ranks",
                           world_rank, ranks);
  }
  const int logical_rank = logical_ranks[world_rank];
  return ProcessGrid(extents, std::move(stage_begin), std::move(placed),
                     std::move(logical_ranks), logical_rank);
}

ProcessGrid::ProcessGrid(GridPoint sizes, std::vector<int> stage_begin,
                         std::vector<int> placement,
                         std::vector<int> logical_ranks, int logical_rank)
    : sizes_(sizes),
      stage_begin_(std::move(stage_begin)),
      placement_(std::move(placement)),
      logical_ranks_(std::move(logical_ranks)),
      logical_rank_(logical_rank),
      point_(PointOf(logical_rank)) {
  if (stages_alike()) return;
  const int stage = coordinate(Axis::kPipeline);
  sizes_[Axis::kData] = stage_begin_[stage + 1] - stage_begin_[stage];
}

GridPoint ProcessGrid::PointOf(int logical_rank) const {
  CHECK(logical_rank >= 0 && logical_rank < num_ranks()) << logical_rank;
  GridPoint point;
  if (!stages_alike()) {
    const auto after = std::upper_bound(stage_begin_.begin(),
                                        stage_begin_.end(), logical_rank);
    point[Axis::kPipeline] = static_cast<int>(after - stage_begin_.begin()) - 1;
    point[Axis::kData] = logical_rank - *(after - 1);
    return point;
  }
  point[Axis::kExpert] = logical_rank % stage_size() % sizes_[Axis::kExpert];
  for (const Axis axis : kGridAxes) {
    point[axis] = logical_rank % sizes_[axis];
    logical_rank /= sizes_[axis];
  }
  return point;
}

int ProcessGrid::LogicalRankOf(const GridPoint& point) const {
  if (!stages_alike()) {
    const int stage = point[Axis::kPipeline];
    CHECK(stage >= 0 && stage < size(Axis::kPipeline)) << stage;
    const int rank = stage_begin_[stage] + point[Axis::kData];
    CHECK(rank >= stage_begin_[stage] && rank < stage_begin_[stage + 1])
        << "dp coordinate " << point[Axis::kData] << " of stage " << stage;
    return rank;
  }
  int rank = 0;
  int stride = 1;
  for (const Axis axis : kGridAxes) {
    CHECK(point[axis] >= 0 && point[axis] < sizes_[axis])
        << axis << " coordinate " << point[axis] << " of " << sizes_[axis];
    rank += stride * point[axis];
    stride *= sizes_[axis];
  }
  return rank;
}

int ProcessGrid::WorldRankOf(int logical_rank) const {
  CHECK(logical_rank >= 0 && logical_rank < num_ranks()) << logical_rank;
  return placement_[logical_rank];
}

int ProcessGrid::LogicalRankOfWorldRank(int world_rank) const {
  CHECK(world_rank >= 0 && world_rank < num_ranks()) << world_rank;
  return logical_ranks_[world_rank];
}

int ProcessGrid::Neighbour(Axis axis, int coordinate) const {
  GridPoint point = point_;
  const int size = sizes_[axis];
  point[axis] = ((coordinate % size) + size) % size;
  return placement_[LogicalRankOf(point)];
}

std::vector<int> ProcessGrid::Group(std::span<const Axis> axes) const {
  const auto varies = [&](Axis axis) {
    return std::find(axes.begin(), axes.end(), axis) != axes.end();
  };
  CHECK(!varies(Axis::kExpert)) << "experts have a grid of their own";
  if (!stages_alike()) {
    std::vector<int> group;
    for (int rank = 0; rank < num_ranks(); ++rank) {
      const GridPoint point = PointOf(rank);
      const bool inside =
          std::all_of(kGridAxes.begin(), kGridAxes.end(), [&](Axis axis) {
            return varies(axis) || point[axis] == point_[axis];
          });
      if (inside) group.push_back(placement_[rank]);
    }
    return group;
  }
  // Grows axis by axis.
  std::vector<int> logical = {0};
  int stride = 1;
  for (const Axis axis : kGridAxes) {
    const int begin = varies(axis) ? 0 : point_[axis];
    const int end = varies(axis) ? sizes_[axis] : begin + 1;
    std::vector<int> grown;
    grown.reserve(logical.size() * (end - begin));
    for (int coordinate = begin; coordinate < end; ++coordinate) {
      for (int rank : logical) grown.push_back(rank + stride * coordinate);
    }
    logical = std::move(grown);
    stride *= sizes_[axis];
  }
  for (int& rank : logical) rank = placement_[rank];
  return logical;
}

std::vector<int> ProcessGrid::ExpertGroup() const {
  const int ep = sizes_[Axis::kExpert];
  std::vector<int> group;
  const int first = logical_rank_ - coordinate(Axis::kExpert);
  for (int rank = first; rank < first + ep; ++rank) {
    group.push_back(placement_[rank]);
  }
  return group;
}

std::vector<int> ProcessGrid::ExpertReplicas() const {
  const int ranks = stage_size();
  const int begin = logical_rank_ - logical_rank_ % ranks;
  std::vector<int> group;
  for (int rank = begin + coordinate(Axis::kExpert); rank < begin + ranks;
       rank += sizes_[Axis::kExpert]) {
    group.push_back(placement_[rank]);
  }
  return group;
}

std::string ProcessGrid::ToString() const {
  std::string text;
  if (!stages_alike()) {
    std::vector<int> ranks;
    for (size_t stage = 0; stage + 1 < stage_begin_.size(); ++stage) {
      ranks.push_back(stage_begin_[stage + 1] - stage_begin_[stage]);
    }
    return fmt::format("stages of {} ranks ({} ranks)", fmt::join(ranks, "+"),
                       num_ranks());
  }
  for (const Axis axis : kGridAxes) {
    if (sizes_[axis] == 1) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : " x ", AxisName(axis),
                        sizes_[axis]);
  }
  return text.empty() ? "1 rank"
                      : fmt::format("{} ({} ranks)", text, num_ranks());
}

}  // namespace trireme
