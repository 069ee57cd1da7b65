// A plan's partial pipeline (Plan.skip) as a SkipPipe instance and a schedule.
//
// Nodes are the plan's logical ranks; the group of stage s is the ranks that
// hold it (scheduler/plan/stage_ranks.h). Costs are nominal (a stage's forward
// takes as long as it has blocks, messages almost nothing): whoever knows a
// cluster gives paths and orders in the plan.
//
// Errors are InvalidArgument and name the field of the plan, what was found and
// what was expected. Pure functions.

#ifndef TRIREME_SCHEDULER_PARTIAL_PLAN_H_
#define TRIREME_SCHEDULER_PARTIAL_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// Blocks of each stage, of which stage s has ranks[s] ranks, where every
// microbatch visits the first and `visited` - 1 of the others, all equally
// often: as even as possible by the work of a rank, the first stage having no
// more than that takes. blocks >= ranks.size() >= visited >= 2.
std::vector<int64_t> SkipStages(int64_t blocks,
                                const std::vector<int64_t>& ranks,
                                int64_t visited);

// Of a plan whose other fields are resolved.
SkipInstance SkipInstanceOf(const Plan& plan);

// Fills in what plan.skip leaves out, and refuses what cannot be. The plan has
// a `skip`; its other fields are resolved.
absl::Status ResolveSkip(Plan& plan);

// Paths and orders of a plan that ResolveSkip has passed.
absl::StatusOr<SkipSchedule> SkipScheduleOf(const Plan& plan);

// Writes paths and orders into the plan.
void SetSkipSchedule(const SkipSchedule& schedule, Plan& plan);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_PLAN_H_
