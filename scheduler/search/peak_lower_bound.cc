// What a plan's ranks hold at least.

#include <algorithm>
#include <limits>

#include "scheduler/search/lower_bounds.h"

namespace trireme {

int64_t PeakBytesBesideUnits(const PlanCosts& costs, int32_t pp,
                             int32_t in_flight) {
  const RankMemory& memory = costs.memory.ranks[pp];
  int64_t least = memory.chunks.front().activation_bytes;
  for (const ChunkMemory& chunk : memory.chunks) {
    least = std::min(least, chunk.activation_bytes);
  }
  return memory.always.total() + in_flight * least;
}

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

}  // namespace trireme
