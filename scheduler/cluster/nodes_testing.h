// For tests: a cluster of nodes that are all alike.

#ifndef TRIREME_SCHEDULER_CLUSTER_NODES_TESTING_H_
#define TRIREME_SCHEDULER_CLUSTER_NODES_TESTING_H_

#include <cstdint>

#include "scheduler/cluster/cluster.h"

namespace trireme {

// `nodes` nodes of `devices` devices each, of the preset's default kinds. A
// cluster that cannot be described fails the test that asks for it.
ClusterModel Nodes(int64_t nodes, int64_t devices);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_NODES_TESTING_H_
