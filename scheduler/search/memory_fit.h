// What a plan's ranks hold at least, and plans that fit where the order of the
// devices, or the cut by time, does not: the pipeline ranks that need most
// memory go to the devices that have most, and blocks move from ranks that are
// full to ranks that have room.

#ifndef TRIREME_SCHEDULER_SEARCH_MEMORY_FIT_H_
#define TRIREME_SCHEDULER_SEARCH_MEMORY_FIT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/candidate_plan.h"

namespace trireme {

// Bytes on pipeline rank `pp` at its peak, of whose microbatches so many are in
// flight; a little less than the simulated peak, which also counts messages.
int64_t PeakLowerBound(const Plan& plan, const PlanCosts& costs, int32_t pp,
                       int32_t in_flight);

// How many blocks of a plan with offload should stay on a device.
// Of each pipeline rank: the fewest with which copies hide behind compute, or
// where these do not fit the most that do; at least 1. `costs`: of the plan
// with any number.
int32_t ChooseResidentUnits(const Plan& plan, const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight);

// The pipeline rank that PeakLowerBound puts furthest above its limit.
// `in_flight`: MostInFlight of the plan's order.
Overflow LeastOverflow(const Plan& plan, const PlanCosts& costs,
                       const std::vector<int32_t>& in_flight);

class MemoryFit {
 public:
  // All must outlive the object.
  MemoryFit(const ModelShape& model, const ClusterModel& cluster,
            const std::vector<int32_t>& in_flight)
      : model_(model), cluster_(cluster), in_flight_(in_flight) {}

  // Whether a placement or cut was found for which no lower bound on the memory
  // of a rank passes its limit; `plan` then has it, and `costs` are its.
  // Else both are left as they were. `ranks`: the devices in the order to
  // prefer. `plan` and `costs` are of one another, and do not fit.
  absl::StatusOr<bool> Fit(const std::vector<int32_t>& ranks,
                           StageCutter& cutter, Plan& plan,
                           PlanCosts& costs) const;

 private:
  // False where that changes nothing.
  bool PlaceByNeed(const std::vector<int32_t>& ranks, const PlanCosts& costs,
                   Plan& plan) const;
  // Moves one block; false where there is none to move.
  bool MoveBlock(const PlanCosts& costs, Plan& plan) const;

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const std::vector<int32_t>& in_flight_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_MEMORY_FIT_H_
