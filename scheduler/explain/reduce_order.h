// What a plan pays for sums whose bits do not depend on NCCL.

#ifndef TRIREME_SCHEDULER_EXPLAIN_REDUCE_ORDER_H_
#define TRIREME_SCHEDULER_EXPLAIN_REDUCE_ORDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/search.h"

namespace trireme {

// In words, what the step of a resolved plan in the order of RANKS, which takes
// `step_s`, would take with `reduce_order: FAST`. Empty where that saves less
// than a hundredth of it, or the cluster's collectives have that order anyway.
absl::StatusOr<std::string> ReduceOrderText(const PlannerInput& input,
                                            const Plan& plan, double step_s);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_REDUCE_ORDER_H_
