// What plans with offload ask of hosts: rates of copies, memory and drives.

#ifndef TRIREME_SCHEDULER_COSTS_HOST_MEMORY_H_
#define TRIREME_SCHEDULER_COSTS_HOST_MEMORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// That the rates of copies between every device and its host are known.
absl::Status CheckHostLinks(const ClusterModel& cluster);

// What the plan's ranks keep on each node's host. `host_bytes`: of each
// pipeline rank (PlanCosts); empty: nothing.
std::vector<int64_t> HostBytesOfNodes(const ClusterModel& cluster,
                                      const Plan& plan,
                                      const std::vector<int64_t>& host_bytes);

// The node whose host memory, where it is known, is exceeded by most: by so
// many bytes.
struct HostOverflow {
  int32_t node = -1;
  int64_t bytes = 0;
};
HostOverflow WorstHostOverflow(const ClusterModel& cluster, const Plan& plan,
                               const std::vector<int64_t>& host_bytes);

// The folder that all nodes have on a drive; empty: there is none.
std::string DriveFolderOf(const ClusterModel& cluster);
// As WorstHostOverflow, of what the plan's ranks keep on drives.
HostOverflow WorstDriveOverflow(const ClusterModel& cluster, const Plan& plan,
                                const std::vector<int64_t>& drive_bytes);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_COSTS_HOST_MEMORY_H_
