// The published runs again: the published paths in the published simulator,
// launched as the published schedules launch them.
//
// The paths of the run with hop counts were not published; it is not among
// these.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_RUNS_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_RUNS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "tools/bench/published/skippipe_instance.h"

namespace trireme {

struct PublishedRun {
  const char* name;
  double published_s = 0;
  double simulated_s = 0;
};

// SkipPipe, cost-aware paths without collision avoidance, and the full
// pipeline. Errors: as SimulateAsPublished.
absl::StatusOr<std::vector<PublishedRun>> SimulatePublishedRuns(
    const PublishedInstance& published);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_RUNS_H_
