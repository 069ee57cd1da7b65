// The machines of a cluster as mpirun is told of them.

#ifndef TRIREME_TOOLS_CLUSTER_HOSTS_H_
#define TRIREME_TOOLS_CLUSTER_HOSTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"
#include "tools/hosts.h"

namespace trireme {

// The nodes in the file's order, by which a plan's placement counts, a rank for
// each device. `given`: --hosts or --hostfile, which may only repeat that, or
// empty. Errors: InvalidArgument for a node without a name, and for other
// hosts, counts or another order in `given`.
absl::StatusOr<std::vector<Host>> HostsOfCluster(
    const Cluster& cluster, const std::vector<Host>& given);

}  // namespace trireme

#endif  // TRIREME_TOOLS_CLUSTER_HOSTS_H_
