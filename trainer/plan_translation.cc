#include "trainer/plan_translation.h"

#include <algorithm>
#include <set>

namespace trireme {

std::vector<std::pair<int, int>> SkipChannels(const SkipSchedule& schedule) {
  std::set<std::pair<int, int>> channels;
  for (const NodePath& path : schedule.paths) {
    for (size_t i = 0; i < path.size(); ++i) {
      const int next = path[(i + 1) % path.size()];
      channels.emplace(path[i], next);
      channels.emplace(next, path[i]);
    }
  }
  return {channels.begin(), channels.end()};
}

BlockRange BlocksOfStage(const Plan& plan, int stage) {
  BlockRange range;
  for (int i = 0; i < stage; ++i) range.first += plan.stages(i).blocks();
  range.end = range.first + plan.stages(stage).blocks();
  return range;
}

BlockRecompute RecomputeOf(Plan::Recompute recompute) {
  switch (recompute) {
    case Plan::SELECTIVE:
      return {.kind = BlockRecompute::Kind::kSelective};
    case Plan::FULL:
      return {.kind = BlockRecompute::Kind::kFull};
    default:
      return {};
  }
}

BlockRecompute RecomputeOf(const Plan& plan) {
  BlockRecompute recompute = RecomputeOf(plan.recompute());
  if (plan.has_recompute_blocks()) recompute.blocks = plan.recompute_blocks();
  return recompute;
}

DataSharding ShardingOf(const Plan& plan) {
  DataSharding sharding;
  switch (plan.sharding()) {
    case Plan::OPTIMIZER:
      sharding.level = DataSharding::Level::kOptimizer;
      break;
    case Plan::GRADIENTS:
      sharding.level = DataSharding::Level::kGradients;
      break;
    case Plan::PARAMETERS:
      sharding.level = DataSharding::Level::kParameters;
      break;
    default:
      break;
  }
  sharding.group = static_cast<int>(plan.shard_group());
  sharding.bf16_messages = plan.bf16_gradient_messages();
  return sharding;
}

absl::StatusOr<ProcessGrid> GridOf(const Plan& plan, int world_rank) {
  const std::vector<int> placement(plan.placement().begin(),
                                   plan.placement().end());
  GridSizes sizes;
  sizes.tp = static_cast<int>(plan.grid().tp());
  sizes.cp = static_cast<int>(plan.grid().cp());
  sizes.ep = static_cast<int>(plan.grid().ep());
  sizes.dp = static_cast<int>(plan.grid().dp());
  sizes.pp = static_cast<int>(plan.grid().pp());
  sizes.stage_ranks.assign(plan.skip().stage_ranks().begin(),
                           plan.skip().stage_ranks().end());
  return ProcessGrid::Create(sizes, placement, world_rank);
}

int VisitsOf(const SkipSchedule& schedule, int logical_rank) {
  return static_cast<int>(std::count_if(
      schedule.paths.begin(), schedule.paths.end(), [&](const NodePath& path) {
        return std::find(path.begin(), path.end(), logical_rank) != path.end();
      }));
}

}  // namespace trireme
