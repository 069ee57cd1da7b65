// Edits of a cluster for questions like "what if that link were ten times
// slower", without hardware.

#ifndef TRIREME_SCHEDULER_PLANNER_WHAT_IF_H_
#define TRIREME_SCHEDULER_PLANNER_WHAT_IF_H_

#include <string_view>

#include "absl/status/status.h"
#include "scheduler/cluster.pb.h"

namespace trireme {

// Applies one edit to a valid cluster:
//   link(2,3).bandwidth/=10    from node 2 to node 3 (one direction); also
//   link(2,3).latency*=2       = and *=; link(2,2) is inside node 2
//   node(3).slowdown=1.5
//   node(3).device=H100        one of `devices`, or known hardware
//   node(3).lost               the nodes after it move up
// InvalidArgument with what was expected; the cluster is then unchanged.
absl::Status ApplyWhatIf(std::string_view edit, Cluster& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLANNER_WHAT_IF_H_
