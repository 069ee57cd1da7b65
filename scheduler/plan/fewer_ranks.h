// A plan for what is left of a job's ranks.

#ifndef TRIREME_SCHEDULER_PLAN_FEWER_RANKS_H_
#define TRIREME_SCHEDULER_PLAN_FEWER_RANKS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.h"

namespace trireme {

// Resolved, for as many of context.world_size ranks as can share the model and
// the batch, which stay what they are. `plan`: what the job had, if anything.
// Its grid with fewer replicas is taken where that fits, else DefaultPlan's
// grid, and in either what else the plan says, where that fits. Errors: those
// of the context; a partial pipeline of which no replica is left. Without one
// a single rank can always train.
absl::StatusOr<DefaultedPlan> PlanForFewerRanks(const std::optional<Plan>& plan,
                                                const PlanContext& context);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLAN_FEWER_RANKS_H_
