#include "trainer/rank/plan_translation.h"

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

int SlicesOf(const ModelFamily& family, int64_t ep) {
  const int64_t experts = family.Shape().experts;
  return experts == 0 ? 1
                      : static_cast<int>(std::max<int64_t>(1, ep / experts));
}

ExpertExchange ExpertExchangeOf(const Plan& plan, const ModelFamily& family) {
  ExpertExchange exchange;
  exchange.slices = SlicesOf(family, plan.grid().ep());
  if (!plan.has_experts()) return exchange;
  exchange.sums_by_rank = true;
  exchange.node_ranks = static_cast<int>(plan.experts().node_ranks());
  exchange.max_load = plan.experts().max_load();
  exchange.chunks = static_cast<int>(plan.experts().chunks());
  exchange.shadowed = static_cast<int>(plan.experts().shadowed());
  exchange.deduplicates = plan.experts().deduplicate();
  exchange.row_copies = static_cast<int>(plan.experts().row_copies());
  switch (plan.experts().move()) {
    case Plan::Experts::WEIGHTS:
      exchange.moves = ExpertExchange::Moves::kWeights;
      break;
    case Plan::Experts::ADAPTIVE:
      exchange.moves = ExpertExchange::Moves::kAdaptive;
      for (const Plan::Experts::Choice& choice : plan.experts().choices()) {
        exchange.choices.push_back(
            {.max_load = choice.max_load(),
             .moves = choice.move() == Plan::Experts::WEIGHTS
                          ? ExpertExchange::Moves::kWeights
                          : ExpertExchange::Moves::kRows,
             .by_nodes = choice.by_nodes(),
             .chunks = std::max(1, static_cast<int>(choice.chunks())),
             .row_copies = static_cast<int>(choice.row_copies())});
      }
      break;
    default:
      exchange.moves = ExpertExchange::Moves::kRows;
  }
  return exchange;
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
