// Paths of a partial pipeline (Plan.skip) for the machines and links of a
// cluster.

#ifndef TRIREME_SCHEDULER_PARTIAL_ROUTE_H_
#define TRIREME_SCHEDULER_PARTIAL_ROUTE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/search.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/memory.h"

namespace trireme {

// The plan's SkipPipe instance with the seconds of its stages on the devices
// where they are placed, recomputation included, and of messages over the links
// between these. Messages between two ranks leave one after another, and pass
// what they share with others (a node's network card, the links of two nodes)
// in the order in which they are ready. `plan` is resolved and has a `skip`.
SkipInstance RoutedInstance(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan);

struct RoutedPlan {
  // With paths and orders.
  Plan plan;
  double makespan_s = 0;
  // No paths are faster.
  double lower_bound_s = 0;
  // That these are the fastest.
  bool proven = false;
};

// The fastest paths found that visit none of the ranks `without` (lost or slow
// ones; the stages that keep a rank are visited equally often where that can
// be). Errors: as SearchSkipSchedule; InvalidArgument where `without` names a
// rank of the first stage or one that the plan does not have, or leaves fewer
// stages than a microbatch visits.
absl::StatusOr<RoutedPlan> RouteSkips(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan,
                                      const SkipSearchOptions& options,
                                      const std::vector<int32_t>& without = {});

// A step of a partial pipeline.
struct SkipEstimate {
  // The last backward; then what reductions and the update add.
  double paths_s = 0;
  double step_s = 0;
  // Of each logical rank: its memory at the peak when its list runs in order
  // (buffers of messages on their way out left out), and its device's.
  std::vector<MemoryBytes> peak;
  std::vector<int64_t> limit;
};

// Each bucket of a stage is reduced as soon as all of the stage's ranks have it
// (where one of them is not visited, after all else: they then reduce in the
// order of the list). Clipping waits for all. Errors: paths and orders that
// are not valid.
absl::StatusOr<SkipEstimate> EstimateSkipPlan(const ModelShape& model,
                                              const ClusterModel& cluster,
                                              const Plan& plan);

// ResourceExhausted with the rank, by how much and the largest item where a
// rank's peak is above its limit.
absl::Status CheckSkipMemory(const SkipEstimate& estimate);

// The estimate as a plan's `predicted`.
Plan::Prediction PredictionOf(const SkipEstimate& estimate);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_ROUTE_H_
