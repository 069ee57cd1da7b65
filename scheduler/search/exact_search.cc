#include "scheduler/search/exact_search.h"

#include <algorithm>
#include <limits>

#include "runtime/core/status.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/placement/node_assignments.h"
#include "scheduler/placement/placed_steps.h"
#include "scheduler/search/lower_bounds.h"
#include "scheduler/search/memory_fit.h"

namespace trireme {

absl::StatusOr<ExactSearchResult> ExactSearch::Run(
    const std::vector<Candidate>& candidates, double step_s) {
  step_s_ = step_s;
  std::vector<std::pair<double, size_t>> order;
  std::vector<Plan> plans(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    // What did not fit was judged with the ranks in one order.
    const VerdictCode verdict = candidates[i].verdict;
    if (verdict != VerdictCode::kPending &&
        verdict != VerdictCode::kOutOfMemory &&
        verdict != VerdictCode::kHostOutOfMemory) {
      continue;
    }
    ASSIGN_OR_RETURN(plans[i],
                     UncutPlan(model_, cluster_, global_batch_, candidates[i]));
    order.emplace_back(ArithmeticLowerBound(model_, cluster_, plans[i]), i);
  }
  std::sort(order.begin(), order.end());
  result_ = {};
  work_ = 0;
  for (const auto& [bound_s, index] : order) {
    if (!CanWin(bound_s)) break;
    RETURN_IF_ERROR(SearchCandidate(index, std::move(plans[index])));
    if (work_ > options_.max_work) return std::move(result_);
  }
  result_.complete = true;
  return std::move(result_);
}

absl::Status ExactSearch::SearchCandidate(size_t index, Plan plan) {
  const auto tp = static_cast<int32_t>(plan.grid().tp());
  std::vector<std::vector<int32_t>> placements;
  NodeAssignments(cluster_, tp).ForEach([&](const std::vector<int32_t>& nodes) {
    placements.push_back(PhysicalRanks(cluster_, tp, nodes));
  });
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < placements.size(); ++i) {
    if (work_ > options_.max_work) return absl::OkStatus();
    PlaceAt(placements[i], plan);
    ASSIGN_OR_RETURN(const double bound_s, BoundOf(plan));
    if (CanWin(bound_s)) order.emplace_back(bound_s, i);
  }
  std::sort(order.begin(), order.end());
  for (const auto& [bound_s, i] : order) {
    if (!CanWin(bound_s) || work_ > options_.max_work) break;
    PlaceAt(placements[i], plan);
    RETURN_IF_ERROR(cutter_.Cut(PlanCoster(model_, cluster_, plan), plan));
    ASSIGN_OR_RETURN(Estimate estimate, EstimatePlan(model_, cluster_, plan));
    for (const auto& list : estimate.program.ranks) {
      work_ += static_cast<int64_t>(list.size() * plan.grid().dp());
    }
    if (!IsFaster(estimate.step_s, step_s_) || !Fits(estimate)) continue;
    step_s_ = estimate.step_s;
    result_.plan = plan;
    result_.estimate = std::move(estimate);
    result_.candidate = index;
  }
  return absl::OkStatus();
}

absl::StatusOr<double> ExactSearch::BoundOf(Plan& plan) {
  work_ += kCostingWork * cluster_.num_ranks();
  const PlanCoster coster(model_, cluster_, plan);
  RETURN_IF_ERROR(cutter_.Cut(coster, plan));
  const std::vector<int32_t>& in_flight = in_flight_.Of(plan);
  double bound_s = 0;
  const auto dp = static_cast<int32_t>(plan.grid().dp());
  for (int32_t replica = 0; replica < dp; ++replica) {
    const PlanCosts costs = coster.CostsOf(replica);
    bound_s = std::max(bound_s, PlacedStepLowerBound(plan, costs, in_flight));
    if (!CanWin(bound_s)) break;
    // All replicas need the same memory.
    if (replica == 0 && LeastOverflow(plan, costs, in_flight).bytes > 0) {
      return std::numeric_limits<double>::infinity();
    }
  }
  return bound_s;
}

}  // namespace trireme
