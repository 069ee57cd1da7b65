#include "scheduler/partial/costs.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/core/log.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"

namespace trireme {
namespace {

int32_t NodeOf(const ClusterModel& cluster, const Plan& plan, int64_t rank) {
  return cluster.node_of_rank[PhysicalRankOf(plan, rank)];
}

// The reduction of a stage's gradients among its ranks.
RingCost RingOfStage(const ClusterModel& cluster, const Plan& plan,
                     int64_t stage) {
  std::vector<int32_t> group;
  std::vector<int64_t> flows(cluster.num_nodes(), 0);
  const int64_t first = FirstRankOfStage(plan, stage);
  for (int64_t i = 0; i < RanksOfStage(plan, stage); ++i) {
    group.push_back(static_cast<int32_t>(PhysicalRankOf(plan, first + i)));
    ++flows[cluster.node_of_rank[group.back()]];
  }
  return RingOf(cluster, group, *std::max_element(flows.begin(), flows.end()),
                SumOrderOf(plan));
}

// A pipeline of one rank a stage, with the head as a stage of its own.
Plan ColumnOf(const Plan& plan) {
  Plan column = plan;
  column.clear_skip();
  column.mutable_grid()->set_dp(1);
  column.mutable_grid()->set_pp(plan.grid().pp() + 1);
  column.add_stages();
  column.set_shard_group(1);
  column.clear_placement();
  for (uint32_t rank = 0; rank < column.grid().pp(); ++rank) {
    column.add_placement(rank);
  }
  return column;
}

// Into how many buckets the chunk's gradients go, each of which the ring
// reduces.
int32_t DivideIntoBuckets(const ModelShape& model, const Plan& plan,
                          int64_t gradient_bytes, const RingCost& ring,
                          ChunkCost& chunk) {
  const int32_t buckets =
      ring.members > 1
          ? BucketsOfGradients(plan, gradient_bytes / model.gradient_bytes * 4)
          : 1;
  chunk.reduce_s = ring.AllReduce(static_cast<double>(gradient_bytes) /
                                  static_cast<double>(buckets));
  chunk.update_s /= buckets;
  return buckets;
}

// What a rank holds that has two chunks.
RankMemory Together(const RankMemory& a, const RankMemory& b) {
  RankMemory both = a;
  both.chunks.push_back(b.chunks.front());
  both.always.parameters += b.always.parameters;
  both.always.gradients += b.always.gradients;
  both.always.optimizer += b.always.optimizer;
  both.always.workspace = std::max(a.always.workspace, b.always.workspace);
  return both;
}

}  // namespace

PlanCosts SkipCostsOf(const ModelShape& model, const ClusterModel& cluster,
                      const Plan& plan) {
  CHECK_EQ(NumRanks(plan), cluster.num_ranks());
  const auto stages = static_cast<int64_t>(plan.grid().pp());
  const Plan column = ColumnOf(plan);
  std::vector<RingCost> rings;
  int64_t columns = 0;
  for (int64_t stage = 0; stage < stages; ++stage) {
    rings.push_back(RingOfStage(cluster, plan, stage));
    columns = std::max(columns, RanksOfStage(plan, stage));
  }
  rings.push_back(rings.front());

  PlanCosts costs;
  costs.cost.chunks.resize(NumRanks(plan));
  costs.memory.ranks.resize(NumRanks(plan));
  std::vector<std::vector<int32_t>> buckets(NumRanks(plan));  // [rank][chunk]
  ClusterModel of_column = cluster;
  for (int64_t i = 0; i < columns; ++i) {
    PlanRings plan_rings;
    of_column.node_of_rank.clear();
    for (int64_t stage = 0; stage <= stages; ++stage) {
      // The head is with the first stage; a stage with fewer ranks is looked
      // at several times.
      const int64_t holder = stage % stages;
      const int64_t rank = FirstRankOfStage(plan, holder) +
                           std::min(i, RanksOfStage(plan, holder) - 1);
      of_column.node_of_rank.push_back(NodeOf(cluster, plan, rank));
      plan_rings.push_back({.reduction = {.slowest = rings[stage]},
                            .experts = {.slowest = rings[stage]},
                            .limit_bytes = MemoryLimitOn(
                                cluster, plan, of_column.node_of_rank.back())});
    }
    const PlanCosts found =
        PlanCoster(model, of_column, column,
                   std::make_shared<const PlanRings>(std::move(plan_rings)))
            .CostsOf(/*replica=*/0);
    for (int64_t stage = 0; stage <= stages; ++stage) {
      const int64_t holder = stage % stages;
      if (i >= RanksOfStage(plan, holder)) continue;
      const int64_t rank = FirstRankOfStage(plan, holder) + i;
      const RankMemory& memory = found.memory.ranks[stage];
      ChunkCost& chunk = costs.cost.chunks[rank].emplace_back(
          found.cost.chunks[stage].front());
      buckets[rank].push_back(DivideIntoBuckets(
          model, plan, memory.always.gradients, rings[stage], chunk));
      RankMemory& held = costs.memory.ranks[rank];
      held = stage == stages ? Together(held, memory) : memory;
    }
  }
  for (int64_t rank = 0; rank < NumRanks(plan); ++rank) {
    MemoryBytes& always = costs.memory.ranks[rank].always;
    // Two buckets under way at most, where there is anybody to send them to.
    int64_t largest = 0;
    for (const int32_t count : buckets[rank]) {
      largest = std::max(largest, always.gradients / count);
      costs.buckets.push_back(count);
    }
    const bool reduces = rings[StageOfRank(plan, rank)].members > 1;
    always.communication = reduces ? 2 * largest : 0;
  }
  costs.cost.clip_s = ClipSeconds(cluster);
  return costs;
}

DeviceArithmetic SkipArithmeticOn(const ModelShape& model,
                                  const ClusterModel& cluster, const Plan& plan,
                                  int32_t node) {
  const Plan column = ColumnOf(plan);
  ClusterModel alone = cluster;
  alone.node_of_rank.assign(column.grid().pp(), node);
  return PlanCoster(model, alone, column).ArithmeticOn(node);
}

}  // namespace trireme
