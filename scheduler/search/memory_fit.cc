#include "scheduler/search/memory_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

// What a plan with offload needs beside the blocks that stream through.
int64_t PeakBytesBesideUnits(const PlanCosts& costs, int32_t pp,
                             int32_t in_flight) {
  const RankMemory& memory = costs.memory.ranks[pp];
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const ChunkMemory& chunk : memory.chunks) {
    int64_t stays = chunk.activation_bytes;
    for (const UnitMemory& unit : chunk.units) stays -= unit.input_bytes;
    least = std::min(least, stays);
  }
  return memory.always.total() + in_flight * least;
}

// Units that compute and copy at once: with fewer on the device no copy hides.
constexpr int32_t kFewestThatOverlap = 2;

// With `n` units and k places a pass brings in n - k of them, the first when
// the first unit is through, the last before the last unit starts:
//   x + (n - k) copy <= (n - 1) x, with x seconds of compute a unit.
// A step's first forward brings in all of them, whatever k is.
int32_t FewestThatHide(int32_t n, double compute_s, double copy_s) {
  if (n <= kFewestThatOverlap) return n;
  if (copy_s <= compute_s) return kFewestThatOverlap;
  const double streamed = std::floor((n - 2) * compute_s / copy_s);
  return std::max(kFewestThatOverlap, n - static_cast<int32_t>(streamed));
}

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

int64_t PeakLowerBound(const Plan& plan, const PlanCosts& costs, int32_t pp,
                       int32_t in_flight) {
  const int64_t beside = PeakBytesBesideUnits(costs, pp, in_flight);
  if (!plan.has_offload()) return beside;
  // Every place is taken when the step starts, and one is by the unit that
  // computes when most activations are there.
  const RankMemory& memory = costs.memory.ranks[pp];
  int64_t units = 0, least = std::numeric_limits<int64_t>::max();
  for (const ChunkMemory& chunk : memory.chunks) {
    for (const UnitMemory& unit : chunk.units) {
      ++units;
      least = std::min(least, unit.parameter_bytes);
    }
  }
  const int64_t places =
      std::min<int64_t>(units, plan.offload().resident_units());
  return std::max(memory.always.total() + places * least, beside + least);
}

int32_t ChooseResidentUnits(const Plan& plan, const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight) {
  const bool unit_major = ScheduleOf(plan).unit_major;
  // Of a unit before the next.
  const double runs = unit_major ? plan.microbatches() : 1;
  int32_t hide = 1, all = 0;
  int64_t fit = std::numeric_limits<int32_t>::max();
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    int32_t units = 0;
    double compute_s = std::numeric_limits<double>::infinity(), copy_s = 0;
    int64_t unit_bytes = 1;
    for (size_t i = 0; i < costs.cost.chunks[pp].size(); ++i) {
      for (const UnitCost& unit : costs.cost.chunks[pp][i].units) {
        ++units;
        compute_s = std::min(compute_s, runs * unit.backward_s);
        if (plan.microbatches() > 1 && !unit_major) {
          compute_s = std::min(compute_s, unit.forward_s);
        }
        copy_s = std::max(copy_s, unit.fetch_s + runs * unit.load_activation_s);
      }
      for (const UnitMemory& unit : costs.memory.ranks[pp].chunks[i].units) {
        unit_bytes = std::max(unit_bytes, unit.parameter_bytes);
      }
    }
    all += units;
    hide = std::max(hide, FewestThatHide(units, compute_s, copy_s));
    // Of places that are taken when most activations are there.
    const int64_t left =
        costs.memory.ranks[pp].limit_bytes -
        PeakBytesBesideUnits(costs, static_cast<int32_t>(pp), in_flight[pp]);
    // A rank with no more units holds them all.
    if (left < units * unit_bytes) fit = std::min(fit, left / unit_bytes);
  }
  // No more than the fullest rank has, however the blocks are cut.
  fit = std::min(
      fit, CeilDivide(all, static_cast<int64_t>(costs.cost.chunks.size())));
  return std::max<int32_t>(1,
                           static_cast<int32_t>(std::min<int64_t>(hide, fit)));
}

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
