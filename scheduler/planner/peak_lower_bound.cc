// What a plan's ranks hold at least.

#include <algorithm>
#include <limits>

#include "scheduler/planner/lower_bounds.h"

namespace trireme {

int64_t PeakBytesBesideUnits(const Plan& plan, const PlanCosts& costs,
                             int32_t pp) {
  const RankMemory& memory = costs.memory.ranks[pp];
  const int64_t p = plan.grid().pp();
  const int64_t n = plan.microbatches();
  const int64_t v = plan.chunks_per_rank();
  // Live microbatches, counted over all chunks.
  int64_t live = 0;
  switch (plan.schedule()) {
    case Plan::GPIPE:
      live = n;
      break;
    case Plan::INTERLEAVED:
      live = std::min<int64_t>(
          n * v, (v - 1) * plan.microbatch_group() + 2 * (p - 1 - pp) + 1);
      break;
    case Plan::ZB_V:
      live = std::min(n, p);
      break;
    default:
      live = std::min(n, p - pp);
  }
  int64_t least = memory.chunks.front().activation_bytes;
  for (const ChunkMemory& chunk : memory.chunks) {
    least = std::min(least, chunk.activation_bytes);
  }
  return memory.always.total() + live * least;
}

int64_t PeakLowerBound(const Plan& plan, const PlanCosts& costs, int32_t pp) {
  const int64_t beside = PeakBytesBesideUnits(plan, costs, pp);
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

}  // namespace trireme
