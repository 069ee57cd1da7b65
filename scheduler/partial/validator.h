// Proof that paths and a schedule keep SkipPipe's constraints. Errors are
// InvalidArgument and name the microbatch, the node, what was found and what
// was expected. Pure; any thread.

#ifndef TRIREME_SCHEDULER_PARTIAL_VALIDATOR_H_
#define TRIREME_SCHEDULER_PARTIAL_VALIDATOR_H_

#include <vector>

#include "absl/status/status.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"

namespace trireme {

// Every path starts at its microbatch's data node (CC1), has exactly
// path_length nodes of distinct stages in an order that the rules allow (CC3);
// all stages but 0 are visited equally often where the instance asks for it
// (CC2), and no node more often than it may.
absl::Status ValidateSkipPaths(const SkipInstance& instance,
                               const std::vector<NodePath>& paths);

// The paths are valid; each node's order holds exactly the tasks that its
// microbatches bring there, the backward mirroring the forward; no node holds
// more microbatches than it has slots (TC1); the orders can be run to their
// end, one task at a time on each node (TC2).
absl::Status ValidateSkipSchedule(const SkipInstance& instance,
                                  const SkipSchedule& schedule);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_VALIDATOR_H_
