// What a plan's step and memory cannot go below: found faster than by
// simulation, to leave out what cannot be the best.

#ifndef TRIREME_SCHEDULER_SEARCH_LOWER_BOUNDS_H_
#define TRIREME_SCHEDULER_SEARCH_LOWER_BOUNDS_H_

#include <cstdint>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// No step of the plan, cut as it is, can be faster than this, whatever its
// placement does to messages: each rank has all its work to do, after the
// forwards that lead to it. Costs are of one replica, with the collectives of
// tensor and context parallelism as its placement has them: for a bound over
// all placements, those of BestCase.
double StepLowerBound(const Plan& plan, const PlanCosts& costs);

// The same of the plan where it is: messages, reductions and gathers take their
// time too. Still alone on links that replicas share. `in_flight`: MostInFlight
// of the plan's order.
double PlacedStepLowerBound(const Plan& plan, const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight);

// Over all placements and cuts of the plan, by arithmetic alone: unlike devices
// are shared out as suits the pipeline best.
double ArithmeticLowerBound(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan);

// Bytes on pipeline rank `pp` at its peak, of whose microbatches so many are in
// flight; a little less than the simulated peak, which also counts messages.
int64_t PeakLowerBound(const Plan& plan, const PlanCosts& costs, int32_t pp,
                       int32_t in_flight);

// The same, of which a plan with offload needs so much beside the blocks that
// stream through.
int64_t PeakBytesBesideUnits(const PlanCosts& costs, int32_t pp,
                             int32_t in_flight);

// The cluster with the fastest device on every node and the fastest link
// between every two: no placement on the real one is faster.
ClusterModel BestCase(const ClusterModel& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_LOWER_BOUNDS_H_
