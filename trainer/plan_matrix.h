// The plans that a job is verified under: every grid that its model and batch
// allow on up to so many ranks, and on each grid every parallel mode.

#ifndef TRIREME_TRAINER_PLAN_MATRIX_H_
#define TRIREME_TRAINER_PLAN_MATRIX_H_

#include <cstdint>
#include <vector>

#include "scheduler/plan.h"

namespace trireme {

// Resolved plans of 2 to `max_ranks` ranks: all grids tp x cp x pp x dp that
// ResolvePlan accepts, each with the plan's defaults, and then with one mode
// after another changed: sequence parallelism, head exchange, each schedule,
// each sharding, each recompute. `context.world_size` is ignored.
std::vector<Plan> PlanMatrix(const PlanContext& context, int64_t max_ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PLAN_MATRIX_H_
