// A rehearsal: a plan's steps on a real network, with computation that sleeps
// for as long as the devices of a cluster would compute. It shows, before those
// devices are there or while they are busy, what a plan does with the links
// between them, beside what the simulator says.
//
// Collectives inside a layer run before the layer's sleep: what overlaps with
// the arithmetic of its own unit (ring attention, the input gradients' sums
// behind the weight gradients) is rehearsed as exposed. Of a plan with offload
// copies and the host's updates take the cluster's time beside computation,
// which they do not slow down.

#ifndef TRIREME_TRAINER_PREFLIGHT_REHEARSE_H_
#define TRIREME_TRAINER_PREFLIGHT_REHEARSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/simulator/trace.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct RehearseOptions {
  TrainingSetup setup;
  // Resolved, for as many ranks as the cluster has.
  Plan plan;
  // Rank i of the world stands for its rank i.
  ClusterModel cluster;
  // One more runs before them, unmeasured: first messages open connections.
  int64_t steps = 5;
  bool trace = false;
};

struct Rehearsal {
  std::vector<StepMetrics> steps;
  // Of a partial pipeline (Plan.skip) the step alone.
  Estimate predicted;
  // Of this rank; empty without options.trace.
  std::vector<TraceEvent> trace;
};

// Collective over the factory's world. Errors: a plan that does not compile or
// does not fit into the devices' memory, a world of another size.
absl::StatusOr<Rehearsal> Rehearse(const RehearseOptions& options,
                                   CommunicatorFactory& factory);

// Of the measured steps.
double MedianStepSeconds(const Rehearsal& rehearsal);

// Predicted and rehearsed step and its causes, side by side.
std::string RehearsalText(const Rehearsal& rehearsal);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_REHEARSE_H_
