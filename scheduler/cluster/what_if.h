// Edits of a cluster for questions like "what if that link were ten times
// slower", without hardware.

#ifndef TRIREME_SCHEDULER_CLUSTER_WHAT_IF_H_
#define TRIREME_SCHEDULER_CLUSTER_WHAT_IF_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"

namespace trireme {

// Applies edits to a valid cluster:
//   link(2,3).bandwidth/=10    from node 2 to node 3 (one direction); also
//   link(2,3).latency*=2       = and *=; link(2,2) is inside node 2
//   node(3).slowdown=1.5
//   node(3).card/=2
//   node(3).device=H100        one of `devices`, or known hardware
//   node(3).lost               the nodes after it move up
// Nodes are those of the given cluster: what is lost goes last. Returns a line
// for each edit: what was, what is. InvalidArgument with what was expected; the
// cluster is then unchanged.
absl::StatusOr<std::string> ApplyWhatIfs(const std::vector<std::string>& edits,
                                         Cluster& cluster);

// Leaves these nodes, in this order, and the links between them.
void KeepNodes(const std::vector<int32_t>& nodes, Cluster& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_WHAT_IF_H_
