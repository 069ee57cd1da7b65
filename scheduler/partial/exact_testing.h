// For tests: the best schedule of a small instance, by branch and bound over
// paths and orders, exponential and for up to about six microbatches; and
// whether times keep a schedule's rules.
//
// Paths are chosen microbatch by microbatch, those of one data node in
// ascending order, within what visits of stages and nodes allow and as long as
// their solo times and the nodes' loads leave room below the best found; of
// complete paths, active schedules (Giffler and Thompson), or all in the order
// of their starts where slots bind.

#ifndef TRIREME_SCHEDULER_PARTIAL_EXACT_TESTING_H_
#define TRIREME_SCHEDULER_PARTIAL_EXACT_TESTING_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"

namespace trireme {

struct ExactResult {
  SkipSchedule schedule;
  double makespan_s = 0;
  // Partial schedules and choices of paths looked at.
  int64_t visited = 0;
};

// ResourceExhausted after `limit` partial schedules and choices of paths,
// NotFound if no paths keep the constraints. `incumbent`, if given, is a valid
// schedule: the result where none is faster. Pure; any thread.
absl::StatusOr<ExactResult> SolveSkipExactly(
    const SkipInstance& instance, int64_t limit,
    const SkipSchedule* incumbent = nullptr);

// That `times` (of a valid schedule, from whatever simulator) respects the
// durations: no task before its message has arrived, no two at once on a node,
// rests kept.
absl::Status ValidateSkipTimes(const SkipInstance& instance,
                               const SkipSchedule& schedule,
                               const SkipTimes& times);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_EXACT_TESTING_H_
