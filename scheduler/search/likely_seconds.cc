#include "scheduler/search/likely_seconds.h"

#include <algorithm>
#include <vector>

#include "scheduler/schedules/schedule.h"
#include "scheduler/search/lower_bounds.h"

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
  std::vector<double> exposed(ranks, 0.0);
  const std::vector<StageLocation> stages = StagesOf(plan);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const auto [pp, index] = stages[stage];
    const ChunkCost& chunk = costs.cost.chunks[pp][index];
    const auto buckets = static_cast<double>(costs.buckets[stage]);
    exposed[pp] +=
        std::max(chunk.reduce_s, buckets * chunk.reduce_s - chunk.backward_s) +
        std::max(0.0, buckets * chunk.gather_s - chunk.forward_s);
  }
  return seconds + *std::max_element(exposed.begin(), exposed.end());
}

}  // namespace trireme
