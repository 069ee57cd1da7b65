#include "trainer/rank/plan_layout.h"

#include <utility>

#include "runtime/core/status.h"
#include "scheduler/partial/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "scheduler/schedules/block_ranks.h"
#include "scheduler/schedules/schedule.h"
#include "trainer/rank/plan_translation.h"

namespace trireme {
namespace {

std::vector<int32_t> StagesOfRank(const Plan& plan, const ProcessGrid& grid) {
  const std::vector<StageLocation> locations = StagesOf(plan);
  std::vector<int32_t> stages(plan.chunks_per_rank());
  for (size_t stage = 0; stage < locations.size(); ++stage) {
    if (locations[stage].rank == grid.coordinate(Axis::kPipeline)) {
      stages[locations[stage].chunk] = static_cast<int32_t>(stage);
    }
  }
  return stages;
}

}  // namespace

absl::StatusOr<PlanLayout> LayOutPlan(const Plan& plan,
                                      const ModelFamily& family,
                                      int world_rank) {
  PlanLayout layout;
  ASSIGN_OR_RETURN(layout.grid, GridOf(plan, world_rank));
  const ProcessGrid& grid = layout.grid;
  layout.communicators.ulysses = static_cast<int>(plan.ulysses());
  layout.communicators.shard_group =
      ShardingOf(plan).ShardsAt(DataSharding::Level::kOptimizer);
  layout.communicators.experts = ExpertExchangeOf(plan, family);
  layout.communicators.reduce_order = plan.reduce_order() == Plan::FAST
                                          ? ReduceOrder::kFast
                                          : ReduceOrder::kRanks;
  layout.stages = StagesOfRank(plan, grid);
  layout.local_batch =
      static_cast<int64_t>(plan.microbatches()) * plan.microbatch_size();
  layout.first_sample = layout.local_batch * grid.coordinate(Axis::kData);
  int64_t first_microbatch = 0;
  if (plan.has_skip()) {
    const int32_t kinds = NumBlockKinds(family.Shape());
    if (kinds > 1) {
      return InvalidArgument(
          "plan.skip: found a model with {} kinds of blocks, expected one "
          "whose "
          "blocks are all alike",
          kinds);
    }
    ASSIGN_OR_RETURN(layout.skip, SkipScheduleOf(plan));
    layout.communicators.channels = SkipChannels(*layout.skip);
    // Microbatches are numbered over all replicas. The first stage's ranks
    // embed their own; any may come to the others.
    if (grid.is_first_stage()) {
      first_microbatch = static_cast<int64_t>(plan.microbatches()) *
                         grid.coordinate(Axis::kData);
    } else {
      layout.local_batch *= plan.grid().dp();
      layout.first_sample = 0;
    }
  }
  std::vector<int32_t> block_ranks;
  if (plan.chunks_per_rank() > 1) block_ranks = BlockRanks(plan);
  for (const int32_t stage : layout.stages) {
    layout.chunks.push_back({.blocks = BlocksOfStage(plan, stage),
                             .recompute = RecomputeOf(plan),
                             .sequence_parallel = plan.sequence_parallel(),
                             .block_ranks = block_ranks,
                             .microbatch_size = plan.microbatch_size(),
                             .first_microbatch = first_microbatch});
    if (plan.has_skip()) layout.chunks.back().head = false;
  }
  if (plan.has_skip() && grid.is_first_stage()) {
    ChunkRequest head = layout.chunks.front();
    const int64_t layers = family.Shape().layers;
    head.blocks = {.first = layers, .end = layers};
    head.head = true;
    layout.chunks.push_back(head);
  }
  return layout;
}

int PlanLayout::pipeline_rank() const {
  return skip.has_value() ? grid.logical_rank()
                          : grid.coordinate(Axis::kPipeline);
}

std::vector<int> PlanLayout::Contributions(const Plan& plan) const {
  std::vector<int> contributions(chunks.size(),
                                 static_cast<int>(plan.microbatches()));
  if (skip.has_value()) {
    contributions[0] = VisitsOf(*skip, grid.logical_rank());
  }
  return contributions;
}

bool PlanLayout::AllReplicasVisited() const {
  const int first = grid.logical_rank() - grid.coordinate(Axis::kData);
  for (int rank = first; rank < first + grid.size(Axis::kData); ++rank) {
    if (VisitsOf(*skip, rank) == 0) return false;
  }
  return true;
}

}  // namespace trireme
