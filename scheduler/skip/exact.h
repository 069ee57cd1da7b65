// The best schedule of a small instance, by branch and bound over paths and
// orders. Exponential: for up to about six microbatches.

#ifndef TRIREME_SCHEDULER_SKIP_EXACT_H_
#define TRIREME_SCHEDULER_SKIP_EXACT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "scheduler/skip/instance.h"
#include "scheduler/skip/simulator.h"

namespace trireme {

struct ExactResult {
  SkipSchedule schedule;
  double makespan_s = 0;
  // Partial schedules looked at.
  int64_t visited = 0;
};

// ResourceExhausted after `limit` partial schedules, NotFound if no paths keep
// the constraints. Pure; any thread.
absl::StatusOr<ExactResult> SolveSkipExactly(const SkipInstance& instance,
                                             int64_t limit);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SKIP_EXACT_H_
