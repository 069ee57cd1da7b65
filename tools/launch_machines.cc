#include "tools/launch_machines.h"

#include <string>

#include "runtime/core/status.h"
#include "scheduler/search/subsets.h"
#include "tools/cluster_hosts.h"
#include "trainer/job/cluster_file.h"

namespace trireme {

absl::StatusOr<std::optional<Cluster>> ClusterOf(
    const ParsedCommand& arguments) {
  if (!arguments.Has("cluster")) {
    if (!arguments.Has("only")) return std::nullopt;
    return InvalidArgument(
        "--only: found no --cluster, expected one: it names nodes of it");
  }
  ASSIGN_OR_RETURN(Cluster cluster, LoadCluster(arguments.Get("cluster")));
  if (!arguments.Has("only")) return cluster;
  ASSIGN_OR_RETURN(const DeviceSubset subset,
                   ParseSubset(cluster, arguments.Get("only")));
  return OnlyDevices(cluster, subset);
}

absl::StatusOr<Machines> MachinesOf(const ParsedCommand& arguments,
                                    const std::optional<Cluster>& cluster) {
  Machines machines;
  if (arguments.Has("hosts") && arguments.Has("hostfile")) {
    return InvalidArgument(
        "--hostfile: found with --hosts, expected one of "
        "them");
  }
  if (arguments.Has("hosts")) {
    ASSIGN_OR_RETURN(machines.hosts,
                     ParseHosts("hosts", arguments.Get("hosts")));
  } else if (arguments.Has("hostfile")) {
    ASSIGN_OR_RETURN(machines.hosts, ReadHostFile(arguments.Get("hostfile")));
  }
  if (cluster.has_value()) {
    ASSIGN_OR_RETURN(machines.hosts, HostsOfCluster(*cluster, machines.hosts));
  }
  const bool in_file = arguments.Has("sparefile");
  if (!in_file && !arguments.Has("spares")) return machines;
  const std::string option = in_file ? "sparefile" : "spares";
  if (in_file && arguments.Has("spares")) {
    return InvalidArgument(
        "--sparefile: found with --spares, expected one of them");
  }
  if (machines.hosts.empty() || !arguments.Has("listen")) {
    return InvalidArgument(
        "--{}: found without --hosts and --listen, expected with both: only "
        "what is heard is known to be lost",
        option);
  }
  ASSIGN_OR_RETURN(machines.spares,
                   in_file ? ReadHostFile(arguments.Get(option))
                           : ParseHosts(option, arguments.Get(option)));
  for (const Host& spare : machines.spares) {
    for (const Host& host : machines.hosts) {
      if (spare.name != host.name) continue;
      return InvalidArgument("--{}: found '{}', expected none of --hosts",
                             option, spare.name);
    }
  }
  return machines;
}

}  // namespace trireme
