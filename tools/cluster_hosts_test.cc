#include "tools/cluster_hosts.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

Cluster TwoNodes() {
  Cluster cluster;
  for (const char* name : {"b", "a"}) {
    Cluster::Node& node = *cluster.add_nodes();
    node.set_name(name);
    node.set_count(4);
  }
  return cluster;
}

// Another order would put every rank of the plan on another node than the one
// it was placed on, without a word.
TEST(ClusterHosts, TheOrderIsTheClustersAlone) {
  const auto hosts = HostsOfCluster(TwoNodes(), {});
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  EXPECT_EQ(HostsText(*hosts), "b:4,a:4");
  EXPECT_TRUE(HostsOfCluster(TwoNodes(), *hosts).ok());
  for (const char* other : {"a:4,b:4", "b:4", "b:4,a:2"}) {
    const auto refused =
        HostsOfCluster(TwoNodes(), *ParseHosts("hosts", other));
    ASSERT_FALSE(refused.ok()) << other;
    EXPECT_NE(refused.status().message().find("expected 'b:4,a:4'"),
              std::string::npos)
        << refused.status();
  }
}

TEST(ClusterHosts, AHostFileMaySayMoreOfThem) {
  auto given = *HostsOfCluster(TwoNodes(), {});
  given[1].paths = "/data:/scratch";
  const auto hosts = HostsOfCluster(TwoNodes(), given);
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  EXPECT_EQ(*hosts, given);
}

TEST(ClusterHosts, ANodeWithoutANameCannotBeReached) {
  Cluster cluster = TwoNodes();
  cluster.mutable_nodes(1)->clear_name();
  const auto hosts = HostsOfCluster(cluster, {});
  ASSERT_FALSE(hosts.ok());
  EXPECT_NE(hosts.status().message().find("nodes(1).name"), std::string::npos);
}

}  // namespace
}  // namespace trireme
