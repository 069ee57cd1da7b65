#include "scheduler/search/resident_units.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "scheduler/search/lower_bounds.h"

namespace trireme {
namespace {

// Units that compute and copy at once: with fewer on the device no copy hides.
constexpr int32_t kFewestThatOverlap = 2;

// With `n` units and k places a pass brings in n - k of them, the first when
// the first unit is through, the last before the last unit starts:
//   x + (n - k) copy <= (n - 1) x, with x seconds of compute a unit.
int32_t FewestThatHide(int32_t n, double compute_s, double copy_s) {
  if (n <= kFewestThatOverlap) return n;
  if (copy_s <= compute_s) return kFewestThatOverlap;
  const double streamed = std::floor((n - 2) * compute_s / copy_s);
  return std::max(kFewestThatOverlap, n - static_cast<int32_t>(streamed));
}

}  // namespace

int32_t ChooseResidentUnits(const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight) {
  int32_t hide = 1, all = 0;
  int64_t fit = std::numeric_limits<int32_t>::max();
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    int32_t units = 0;
    double compute_s = std::numeric_limits<double>::infinity(), copy_s = 0;
    int64_t unit_bytes = 1;
    for (size_t i = 0; i < costs.cost.chunks[pp].size(); ++i) {
      for (const UnitCost& unit : costs.cost.chunks[pp][i].units) {
        ++units;
        compute_s = std::min({compute_s, unit.forward_s, unit.backward_s});
        copy_s = std::max(copy_s, unit.fetch_s);
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

}  // namespace trireme
