// What the ranks of a partial pipeline (Plan.skip) take and hold on a cluster,
// by the planner's ordinary cost and memory models: each rank as that of a
// pipeline without replicas through it, the head as a last stage without
// blocks.

#ifndef TRIREME_SCHEDULER_PARTIAL_COSTS_H_
#define TRIREME_SCHEDULER_PARTIAL_COSTS_H_

#include <cstdint>

#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// By logical rank: chunk 0 is the rank's stage; ranks of the first stage also
// have the head. `buckets` are the chunks', rank by rank; seconds of reductions
// and updates are of one. Links are left out. `plan` is resolved, has a `skip`
// and as many ranks as the cluster.
PlanCosts SkipCostsOf(const ModelShape& model, const ClusterModel& cluster,
                      const Plan& plan);

// Seconds of the model's units on one of the node's devices, for such a plan.
DeviceArithmetic SkipArithmeticOn(const ModelShape& model,
                                  const ClusterModel& cluster, const Plan& plan,
                                  int32_t node);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_COSTS_H_
