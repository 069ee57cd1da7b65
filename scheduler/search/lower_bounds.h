// What a plan's step cannot go below: found faster than by simulation, to leave
// out what cannot be the best.

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
// all placements, those of BestCase or BestNode.
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

// StepLowerBound, and what it leaves out, roughly: messages that a round trip
// exposes, and gradients that no backward hides. In this order candidates are
// simulated.
double LikelySeconds(const Plan& plan, const PlanCosts& costs);

// The cluster with the fastest device on every node and the fastest link
// between every two: no placement on the real one is faster whose groups are
// on the same nodes.
ClusterModel BestCase(const ClusterModel& cluster);

// All devices of the best case in one node: no placement is faster, whichever
// groups it divides among nodes.
ClusterModel BestNode(const ClusterModel& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_LOWER_BOUNDS_H_
