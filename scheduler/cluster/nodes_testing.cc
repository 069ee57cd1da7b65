#include "scheduler/cluster/nodes_testing.h"

#include <utility>

#include "gtest/gtest.h"

namespace trireme {

ClusterModel Nodes(int64_t nodes, int64_t devices) {
  const absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = nodes, .devices_per_node = devices});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  absl::StatusOr<ClusterModel> model = ResolveCluster(*cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

}  // namespace trireme
