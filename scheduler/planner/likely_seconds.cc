#include "scheduler/planner/likely_seconds.h"

#include <algorithm>

#include "scheduler/planner/lower_bounds.h"

namespace trireme {

double LikelySeconds(const Plan& plan, const PlanCosts& costs) {
  double seconds = StepLowerBound(plan, costs);
  const size_t ranks = costs.cost.chunks.size();
  for (size_t pp = 0; pp + 1 < ranks && !costs.cost.links.empty(); ++pp) {
    for (const size_t at : {pp * ranks + pp + 1, (pp + 1) * ranks + pp}) {
      const LinkCost& link = costs.cost.links[at];
      seconds += (link.latency_s +
                  static_cast<double>(costs.cost.chunks[pp][0].message_bytes) /
                      link.bytes_per_s) *
                 plan.microbatches() / static_cast<double>(ranks) *
                 plan.chunks_per_rank();
    }
  }
  double exposed = 0;
  for (size_t pp = 0; pp < ranks; ++pp) {
    double rank = 0;
    for (const ChunkCost& chunk : costs.cost.chunks[pp]) {
      const double reduce =
          static_cast<double>(costs.buckets[pp]) * chunk.reduce_s;
      rank += std::max(chunk.reduce_s, reduce - chunk.backward_s) +
              static_cast<double>(costs.buckets[pp]) * chunk.gather_s;
    }
    exposed = std::max(exposed, rank);
  }
  return seconds + exposed;
}

}  // namespace trireme
