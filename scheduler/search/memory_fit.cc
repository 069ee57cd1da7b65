#include "scheduler/search/memory_fit.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/search/lower_bounds.h"

namespace trireme {
namespace {

// What is out of balance by more is slower than recomputation.
constexpr int kMostMoves = 8;

// Of a pipeline rank: above its limit.
int64_t OverflowOf(const Plan& plan, const PlanCosts& costs, int32_t pp,
                   const std::vector<int32_t>& in_flight) {
  return PeakLowerBound(plan, costs, pp, in_flight[pp]) -
         costs.memory.ranks[pp].limit_bytes;
}

// Whether the ranks together have room for what they need together.
bool FitsTogether(const Plan& plan, const PlanCosts& costs,
                  const std::vector<int32_t>& in_flight) {
  int64_t over = 0;
  for (size_t pp = 0; pp < costs.memory.ranks.size(); ++pp) {
    over += OverflowOf(plan, costs, static_cast<int32_t>(pp), in_flight);
  }
  return over <= 0;
}

}  // namespace

Overflow LeastOverflow(const Plan& plan, const PlanCosts& costs,
                       const std::vector<int32_t>& in_flight) {
  Overflow worst;
  for (size_t pp = 0; pp < costs.memory.ranks.size(); ++pp) {
    const int64_t over =
        OverflowOf(plan, costs, static_cast<int32_t>(pp), in_flight);
    if (over > worst.bytes) worst = {static_cast<int32_t>(pp), over};
  }
  return worst;
}

absl::StatusOr<bool> MemoryFit::Fit(const std::vector<int32_t>& ranks,
                                    StageCutter& cutter, Plan& plan,
                                    PlanCosts& costs) const {
  if (plan.grid().pp() == 1 || plan.has_offload()) return false;
  Plan fitted = plan;
  const bool placed_anew = PlaceByNeed(ranks, costs, fitted);
  // A rank with several stages has them at both ends of the pipeline: which of
  // them gives way is not so clear.
  const bool moves = plan.chunks_per_rank() == 1;
  if (!placed_anew && !(moves && FitsTogether(plan, costs, in_flight_)))
    return false;
  const PlanCoster coster(model_, cluster_, fitted);
  if (placed_anew) RETURN_IF_ERROR(cutter.Cut(coster, fitted));
  PlanCosts fitted_costs = coster.CostsOf(0);
  const auto fits = [&] {
    return LeastOverflow(fitted, fitted_costs, in_flight_).bytes <= 0;
  };
  for (int move = 0; moves && move < kMostMoves && !fits(); ++move) {
    if (!FitsTogether(fitted, fitted_costs, in_flight_)) break;
    if (!MoveBlock(fitted_costs, fitted)) break;
    fitted_costs = coster.CostsOf(0);
  }
  if (!fits()) return false;
  plan = std::move(fitted);
  costs = std::move(fitted_costs);
  return true;
}

bool MemoryFit::PlaceByNeed(const std::vector<int32_t>& ranks,
                            const PlanCosts& costs, Plan& plan) const {
  std::vector<int64_t> memory;  // of a device of each node
  for (int32_t node = 0; node < cluster_.num_nodes(); ++node) {
    memory.push_back(MemoryLimitOn(cluster_, plan, node));
  }
  const auto [least, most] = std::minmax_element(memory.begin(), memory.end());
  if (*least == *most) return false;
  const auto memory_of = [&](int32_t rank) {
    return memory[cluster_.node_of_rank[rank]];
  };
  std::vector<int32_t> by_memory = ranks;
  std::stable_sort(
      by_memory.begin(), by_memory.end(),
      [&](int32_t a, int32_t b) { return memory_of(a) > memory_of(b); });
  const auto pp = static_cast<int32_t>(plan.grid().pp());
  std::vector<int32_t> by_need(pp);
  std::iota(by_need.begin(), by_need.end(), 0);
  std::stable_sort(by_need.begin(), by_need.end(), [&](int32_t a, int32_t b) {
    return PeakLowerBound(plan, costs, a, in_flight_[a]) >
           PeakLowerBound(plan, costs, b, in_flight_[b]);
  });
  const auto devices = static_cast<int32_t>(by_memory.size()) / pp;
  std::vector<int32_t> physical(by_memory.size());
  for (int32_t i = 0; i < pp; ++i) {
    std::copy_n(by_memory.begin() + i * devices, devices,
                physical.begin() + by_need[i] * devices);
  }
  PlaceAt(physical, plan);
  return physical != ranks;
}

bool MemoryFit::MoveBlock(const PlanCosts& costs, Plan& plan) const {
  int32_t fullest = -1, emptiest = 0;
  for (int32_t pp = 0; pp < plan.stages_size(); ++pp) {
    const int64_t over = OverflowOf(plan, costs, pp, in_flight_);
    if (plan.stages(pp).blocks() > 1 &&
        (fullest < 0 || over > OverflowOf(plan, costs, fullest, in_flight_))) {
      fullest = pp;
    }
    if (over < OverflowOf(plan, costs, emptiest, in_flight_)) emptiest = pp;
  }
  if (fullest < 0 || fullest == emptiest) return false;
  plan.mutable_stages(fullest)->set_blocks(plan.stages(fullest).blocks() - 1);
  plan.mutable_stages(emptiest)->set_blocks(plan.stages(emptiest).blocks() + 1);
  return true;
}

}  // namespace trireme
