#include "scheduler/placement/placed_steps.h"

#include <algorithm>
#include <limits>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/costs/replicas.h"
#include "scheduler/program/compile.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
void PlacedSteps::CostReplicas(const std::vector<int32_t>& physical) {
  plan_.mutable_placement()->Assign(physical.begin(), physical.end());
  const PlanCoster coster(model_, cluster_, plan_);
  const auto dp = static_cast<int32_t>(plan_.grid().dp());
  const auto inner =
      static_cast<int32_t>(plan_.grid().tp() * plan_.grid().cp());
  const auto ep = std::max(1, static_cast<int32_t>(plan_.grid().ep()));
  // Reductions are the same for all replicas.
  const bool all = rings_ == nullptr || !(*rings_ == *coster.rings());
  rings_ = coster.rings();
  std::vector<bool> moved(dp, all);
  for (size_t rank = 0; rank < physical.size() && !all; ++rank) {
    if (cluster_.node_of_rank[physical[rank]] ==
        cluster_.node_of_rank[physical_[rank]]) {
      continue;
    }
    // Its expert group may have ranks of other replicas.
    const int32_t of_stage = static_cast<int32_t>(rank) % (inner * dp);
    const int32_t first = of_stage / ep * ep;
    std::fill(moved.begin() + first / inner,
              moved.begin() + (first + ep - 1) / inner + 1, true);
  }
  costs_.resize(dp);
  for (int32_t replica = 0; replica < dp; ++replica) {
    if (moved[replica]) costs_[replica] = coster.CostsOf(replica);
  }
  physical_ = physical;
  work_ += kCostingWork * static_cast<int64_t>(physical.size());
}

absl::StatusOr<double> PlacedSteps::StepOf(
    const std::vector<int32_t>& physical) {
  CostReplicas(physical);
  if (program_.ranks.empty()) {
    ASSIGN_OR_RETURN(
        program_,
        CompilePlan(plan_, {.buckets_per_stage = costs_.front().buckets}));
  }
  double step_s = 0;
  for (const std::vector<int32_t>& group : ReplicasTogether(costs_)) {
    const std::vector<CostModel> together = CostsTogether(costs_, group);
    const auto [known, is_new] = known_.try_emplace(FiguresOf(together), 0.0);
    if (is_new) {
      ASSIGN_OR_RETURN(const std::vector<Simulation> simulations,
                       SimulateReplicas(program_, together));
      for (const Simulation& simulation : simulations) {
        known->second = std::max(known->second, simulation.step_s);
        for (const auto& times : simulation.times) {
          work_ += static_cast<int64_t>(times.size());
        }
      }
    }
    step_s = std::max(step_s, known->second);
  }
  return step_s;
}

absl::StatusOr<RefinedPlacement> RefinePlacement(
    PlacedSteps& steps, const ClusterModel& cluster,
    const std::vector<std::vector<int32_t>>& starts, int32_t unit_ranks,
    int64_t work) {
  CHECK(!starts.empty());
  const int64_t last_work = steps.work() + work;
  RefinedPlacement best;
  best.step_s = std::numeric_limits<double>::infinity();
  for (const std::vector<int32_t>& start : starts) {
    if (steps.work() > last_work) break;
    ASSIGN_OR_RETURN(const double step_s, steps.StepOf(start));
    if (step_s < best.step_s) best = {start, step_s};
  }
  const auto units = static_cast<int32_t>(best.physical.size()) / unit_ranks;
  const auto node_of_unit = [&](const std::vector<int32_t>& physical,
                                int32_t unit) {
    return cluster.node_of_rank[physical[unit * unit_ranks]];
  };
  const auto exchange = [&](std::vector<int32_t>& physical, int32_t a,
                            int32_t b) {
    std::swap_ranges(physical.begin() + a * unit_ranks,
                     physical.begin() + (a + 1) * unit_ranks,
                     physical.begin() + b * unit_ranks);
  };
  // Goes on with the first exchange that helps.
  const auto improves =
      [&](const std::vector<int32_t>& moved) -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(const double step_s, steps.StepOf(moved));
    if (!IsFaster(step_s, best.step_s)) return false;
    best = {moved, step_s};
    return true;
  };
  bool improved = true;
  while (improved && steps.work() <= last_work) {
    improved = false;
    for (int32_t a = 0; a < cluster.num_nodes(); ++a) {
      for (int32_t b = a + 1; b < cluster.num_nodes(); ++b) {
        if (steps.work() > last_work) return best;
        if (cluster.nodes[a].count != cluster.nodes[b].count) continue;
        if (cluster.nodes[a].count == unit_ranks) continue;  // one unit each
        std::vector<int32_t> of_a, of_b;
        for (int32_t unit = 0; unit < units; ++unit) {
          const int32_t node = node_of_unit(best.physical, unit);
          if (node == a) of_a.push_back(unit);
          if (node == b) of_b.push_back(unit);
        }
        std::vector<int32_t> moved = best.physical;
        for (size_t i = 0; i < std::min(of_a.size(), of_b.size()); ++i) {
          exchange(moved, of_a[i], of_b[i]);
        }
        ASSIGN_OR_RETURN(const bool better, improves(moved));
        improved = improved || better;
      }
    }
    for (int32_t a = 0; a < units; ++a) {
      for (int32_t b = a + 1; b < units; ++b) {
        if (steps.work() > last_work) return best;
        if (node_of_unit(best.physical, a) == node_of_unit(best.physical, b)) {
          continue;
        }
        std::vector<int32_t> moved = best.physical;
        exchange(moved, a, b);
        ASSIGN_OR_RETURN(const bool better, improves(moved));
        improved = improved || better;
      }
    }
  }
  return best;
}

}  // namespace trireme
