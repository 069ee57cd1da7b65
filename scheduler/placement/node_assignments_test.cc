#include "scheduler/placement/node_assignments.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/search/unlike_clusters_testing.h"

namespace trireme {
namespace {

using Nodes = std::vector<int32_t>;

// Placements that are never visited are never searched. On unlike nodes all
// orders of the units are different.
TEST(NodeAssignments, AreAllOrders) {
  for (const int32_t unit_ranks : {1, 2}) {
    const auto cluster = ResolveCluster(UnlikeCluster({4, 2, 2}, 1).cluster);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    Nodes nodes;
    for (int32_t node = 0; node < cluster->num_nodes(); ++node) {
      nodes.insert(nodes.end(), cluster->nodes[node].count / unit_ranks, node);
    }
    std::vector<Nodes> orders;
    do {
      orders.push_back(nodes);
    } while (std::next_permutation(nodes.begin(), nodes.end()));
    std::vector<Nodes> visited;
    NodeAssignments(*cluster, unit_ranks).ForEach([&](const Nodes& visit) {
      visited.push_back(visit);
    });
    EXPECT_EQ(visited, orders);
  }
}

}  // namespace
}  // namespace trireme
