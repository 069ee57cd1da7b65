// Which data-parallel replicas of a plan have to be simulated together, and
// which are alike.

#ifndef TRIREME_SCHEDULER_COSTS_REPLICAS_H_
#define TRIREME_SCHEDULER_COSTS_REPLICAS_H_

#include <cstdint>
#include <vector>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/simulator/cost_model.h"

namespace trireme {

// Replicas that share channels, directly or through others. costs[replica].
std::vector<std::vector<int32_t>> ReplicasTogether(
    const std::vector<PlanCosts>& costs);

// The group's costs, with channels numbered as they come.
std::vector<CostModel> CostsTogether(const std::vector<PlanCosts>& costs,
                                     const std::vector<int32_t>& group);

// Groups with equal figures take equally long in one Program.
std::vector<double> FiguresOf(const std::vector<CostModel>& together);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_COSTS_REPLICAS_H_
