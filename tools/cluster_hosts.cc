#include "tools/cluster_hosts.h"

#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::vector<Host>> HostsOfCluster(
    const Cluster& cluster, const std::vector<Host>& given) {
  std::vector<Host> hosts;
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    const Cluster::Node& node = cluster.nodes(i);
    if (node.name().empty()) {
      return InvalidArgument(
          "--cluster: found no nodes({}).name, expected the host's, by which "
          "mpirun reaches it",
          i);
    }
    hosts.push_back({.name = node.name(), .ranks = node.count()});
  }
  if (given.empty()) return hosts;
  if (HostsText(given) != HostsText(hosts)) {
    return InvalidArgument(
        "--hosts: found '{}', expected '{}', as --cluster has them: a plan's "
        "ranks lie on its nodes in that order",
        HostsText(given), HostsText(hosts));
  }
  return given;
}

}  // namespace trireme
