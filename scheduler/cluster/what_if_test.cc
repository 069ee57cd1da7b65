#include "scheduler/cluster/what_if.h"

#include "gtest/gtest.h"
#include "scheduler/cluster/cluster.h"

namespace trireme {
namespace {

Cluster FourNodes() {
  const absl::StatusOr<Cluster> cluster = DescribeCluster({.nodes = 4});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *cluster;
}

ClusterModel Edited(const std::string& edit) {
  Cluster cluster = FourNodes();
  const auto changes = ApplyWhatIfs({edit}, cluster);
  EXPECT_TRUE(changes.ok()) << changes.status();
  return *ResolveCluster(cluster);
}

TEST(WhatIf, EditsWhatItNames) {
  const ClusterModel before = *ResolveCluster(FourNodes());
  const double rate = before.LinkBetweenNodes(2, 3).bytes_per_s;

  const ClusterModel slow = Edited("link(2,3).bandwidth/=10");
  EXPECT_DOUBLE_EQ(slow.LinkBetweenNodes(2, 3).bytes_per_s, rate / 10);
  EXPECT_DOUBLE_EQ(slow.LinkBetweenNodes(3, 2).bytes_per_s, rate);
  EXPECT_EQ(Edited("link(0,1).latency=0.5").LinkBetweenNodes(0, 1).latency_s,
            0.5);
  EXPECT_EQ(Edited("node(1).slowdown=1.5").nodes[1].slowdown, 1.5);

  const ClusterModel mixed = Edited("node(0).device=H100");
  EXPECT_EQ(mixed.DeviceOfNode(0).name, "H100");
  EXPECT_EQ(mixed.DeviceOfNode(1).name, "A100");
  EXPECT_GT(mixed.nodes[0].link.bytes_per_s, mixed.nodes[1].link.bytes_per_s);
}

// The optimizer of a plan that offloads runs on the host.
TEST(WhatIf, AnotherDeviceComesWithItsHost) {
  const ClusterModel cluster = Edited("node(0).device=B200");
  EXPECT_GT(cluster.nodes[0].host_memory_bytes_per_s,
            1.5 * cluster.nodes[1].host_memory_bytes_per_s);
}

TEST(WhatIf, ACardIsAskedAboutLikeALink) {
  Cluster cluster = FourNodes();
  EXPECT_FALSE(ApplyWhatIfs({"node(1).card/=2"}, cluster).ok());
  cluster.mutable_nodes(1)->set_card_bytes_per_s(1e9);
  EXPECT_FALSE(ApplyWhatIfs({"node(1).card=0"}, cluster).ok());
  ASSERT_TRUE(ApplyWhatIfs({"node(1).card/=2"}, cluster).ok());
  EXPECT_EQ(cluster.nodes(1).card_bytes_per_s(), 5e8);
}

// After a node is lost, the links of those behind it must still be theirs.
TEST(WhatIf, LosingANodeKeepsTheOthersLinks) {
  Cluster cluster = FourNodes();
  ASSERT_TRUE(ApplyWhatIfs({"link(2,3).bandwidth=1e9"}, cluster).ok());
  ASSERT_TRUE(ApplyWhatIfs({"link(1,3).bandwidth=2e9"}, cluster).ok());
  ASSERT_TRUE(ApplyWhatIfs({"node(1).lost"}, cluster).ok());
  const ClusterModel model = *ResolveCluster(cluster);
  EXPECT_EQ(model.num_nodes(), 3);
  EXPECT_EQ(model.LinkBetweenNodes(1, 2).bytes_per_s, 1e9);
  EXPECT_GT(model.LinkBetweenNodes(0, 2).bytes_per_s, 2e9);
}

// Every edit means the nodes that the user's file has, whatever is lost.
TEST(WhatIf, LostNodesDoNotRenumberOtherEdits) {
  Cluster cluster = FourNodes();
  const auto changes = ApplyWhatIfs(
      {"node(0).lost", "node(2).lost", "node(3).slowdown=2"}, cluster);
  ASSERT_TRUE(changes.ok()) << changes.status();
  ASSERT_EQ(cluster.nodes_size(), 2);
  EXPECT_EQ(cluster.nodes(0).name(), "node1");
  EXPECT_EQ(cluster.nodes(1).name(), "node3");
  EXPECT_EQ(cluster.nodes(1).slowdown(), 2);
  for (const char* part : {"node(3).slowdown=2: 1 -> 2", "without node0"}) {
    EXPECT_NE(changes->find(part), std::string::npos) << part << *changes;
  }
}

TEST(WhatIf, RefusesAndChangesNothing) {
  for (const char* edit :
       {"", "link(0,9).bandwidth/=10", "link(0,1).bandwidth/=0",
        "link(0,1).bandwidth=fast", "link(0,1).colour=3", "node(0).device=X",
        "link(0,1).bandwidth=0", "link(0,1).bandwidth=nan",
        "node(0).slowdown=0", "node(4).lost", "node(0).lost=1",
        "link(0).latency=1", "link(0,1", ").x(", "node(0).device*=H100", "=",
        "node(-1).lost"}) {
    Cluster cluster = FourNodes();
    EXPECT_FALSE(ApplyWhatIfs({edit}, cluster).ok()) << edit;
    EXPECT_EQ(cluster.SerializeAsString(), FourNodes().SerializeAsString());
  }
}

}  // namespace
}  // namespace trireme
