// Paths of a partial pipeline (Plan.skip) for the machines and links of a
// cluster.

#ifndef TRIREME_SCHEDULER_PLANNER_SKIP_ROUTE_H_
#define TRIREME_SCHEDULER_PLANNER_SKIP_ROUTE_H_

#include "absl/status/statusor.h"
#include "scheduler/plan.pb.h"
#include "scheduler/planner/cluster.h"
#include "scheduler/planner/model_shape.h"
#include "scheduler/skip/instance.h"
#include "scheduler/skip/search.h"

namespace trireme {

// The plan's SkipPipe instance with the seconds of its stages on the devices
// where they are placed, and of messages over the links between these. Links
// carry any number of messages at once. `plan` is resolved and has a `skip`.
SkipInstance RoutedInstance(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan);

struct RoutedPlan {
  // With paths and orders.
  Plan plan;
  double makespan_s = 0;
  // No paths are faster.
  double lower_bound_s = 0;
};

// The fastest paths found. Errors: as SearchSkipSchedule.
absl::StatusOr<RoutedPlan> RouteSkips(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan,
                                      const SkipSearchOptions& options);

// Seconds of a step of a partial pipeline: until the last backward, then the
// slowest stage's gradient reduction and update.
absl::StatusOr<double> SkipStepSeconds(const ModelShape& model,
                                       const ClusterModel& cluster,
                                       const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLANNER_SKIP_ROUTE_H_
