#include "scheduler/costs/host_memory.h"

#include <utility>

#include "fmt/format.h"
#include "scheduler/cluster/fields.h"
#include "scheduler/plan/plan.h"

namespace trireme {

absl::Status CheckHostLinks(const ClusterModel& cluster) {
  for (const ClusterNode& node : cluster.nodes) {
    const int32_t i = node.device;
    const ClusterDevice& device = cluster.devices[i];
    for (const auto& [name, rate] :
         {std::pair("to_device_bytes_per_s", device.to_device_bytes_per_s),
          std::pair("to_host_bytes_per_s", device.to_host_bytes_per_s)}) {
      if (rate > 0) continue;
      return FieldError(
          fmt::format("devices[{}].{}", i, name), "none",
          "the rate of copies (`trireme profile` measures it): a plan with "
          "offload depends on it");
    }
  }
  return absl::OkStatus();
}

namespace {

// Of what nodes have of something, where it is known.
HostOverflow WorstOverflow(const ClusterModel& cluster,
                           const std::vector<int64_t>& of_nodes,
                           int64_t ClusterNode::*limit_of) {
  HostOverflow worst;
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    const int64_t limit = cluster.nodes[node].*limit_of;
    if (limit > 0 && of_nodes[node] - limit > worst.bytes) {
      worst = {node, of_nodes[node] - limit};
    }
  }
  return worst;
}

}  // namespace

std::vector<int64_t> HostBytesOfNodes(const ClusterModel& cluster,
                                      const Plan& plan,
                                      const std::vector<int64_t>& host_bytes) {
  std::vector<int64_t> of_nodes(cluster.num_nodes(), 0);
  if (host_bytes.empty()) return of_nodes;
  for (int64_t rank = 0; rank < GridSize(plan.grid()); ++rank) {
    of_nodes[cluster.node_of_rank[PhysicalRankOf(plan, rank)]] +=
        host_bytes[CoordinatesOf(plan.grid(), rank).pp];
  }
  return of_nodes;
}

HostOverflow WorstHostOverflow(const ClusterModel& cluster, const Plan& plan,
                               const std::vector<int64_t>& host_bytes) {
  return WorstOverflow(cluster, HostBytesOfNodes(cluster, plan, host_bytes),
                       &ClusterNode::host_memory_bytes);
}

std::string DriveFolderOf(const ClusterModel& cluster) {
  const std::string& folder = cluster.nodes.front().drive_folder;
  for (const ClusterNode& node : cluster.nodes) {
    if (node.drive_folder != folder) return "";
  }
  return folder;
}

HostOverflow WorstDriveOverflow(const ClusterModel& cluster, const Plan& plan,
                                const std::vector<int64_t>& drive_bytes) {
  return WorstOverflow(cluster, HostBytesOfNodes(cluster, plan, drive_bytes),
                       &ClusterNode::drive_free_bytes);
}

}  // namespace trireme
