// In which order candidates are simulated.

#ifndef TRIREME_SCHEDULER_SEARCH_LIKELY_SECONDS_H_
#define TRIREME_SCHEDULER_SEARCH_LIKELY_SECONDS_H_

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// StepLowerBound, and what it leaves out, roughly: messages that a round trip
// exposes, and gradients that no backward hides.
double LikelySeconds(const Plan& plan, const PlanCosts& costs);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_LIKELY_SECONDS_H_
