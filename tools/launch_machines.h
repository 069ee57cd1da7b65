// On which machines `trireme launch` starts ranks, by its options.

#ifndef TRIREME_TOOLS_LAUNCH_MACHINES_H_
#define TRIREME_TOOLS_LAUNCH_MACHINES_H_

#include <optional>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"
#include "tools/cli/command.h"
#include "tools/hosts.h"

namespace trireme {

// What --cluster and --only name, if they are given. Errors: no such file, or
// nodes that it does not have; --only without --cluster.
absl::StatusOr<std::optional<Cluster>> ClusterOf(
    const ParsedCommand& arguments);

// Of --hosts or --hostfile, in the order of `cluster` if there is one, and of
// --spares or --sparefile; none: this machine. Errors: InvalidArgument naming
// the option; no such file.
absl::StatusOr<Machines> MachinesOf(const ParsedCommand& arguments,
                                    const std::optional<Cluster>& cluster);

}  // namespace trireme

#endif  // TRIREME_TOOLS_LAUNCH_MACHINES_H_
