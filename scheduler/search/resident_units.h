// How many blocks of a plan with offload should stay on a device.

#ifndef TRIREME_SCHEDULER_SEARCH_RESIDENT_UNITS_H_
#define TRIREME_SCHEDULER_SEARCH_RESIDENT_UNITS_H_

#include <cstdint>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// Of each pipeline rank: the fewest with which copies hide behind compute, or
// where these do not fit the most that do; at least 1. `costs`: of the plan
// with any number.
int32_t ChooseResidentUnits(const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_RESIDENT_UNITS_H_
