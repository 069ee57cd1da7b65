#include "trainer/profile_cluster.h"

#include <mutex>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/planner/cluster.h"

namespace trireme {
namespace {

absl::StatusOr<ClusterProfile> ProfileOn(
    const std::vector<std::string>& hosts) {
  absl::StatusOr<ClusterProfile> result = ClusterProfile();
  std::mutex mutex;
  RunThreadRanks(static_cast<int>(hosts.size()),
                 [&](CommunicatorFactory& factory, int rank) {
                   CpuDevice device(int64_t{1} << 30);
                   auto profile =
                       ProfileCluster({.host = hosts[rank],
                                       .memory_bytes = 1000 + rank,
                                       .links = {.large_bytes = 1 << 16,
                                                 .largest_bytes = 1 << 20,
                                                 .repetitions = 3},
                                       .repetitions = 3},
                                      device, factory);
                   const std::lock_guard lock(mutex);
                   if (rank == 0) result = std::move(profile);
                 });
  return result;
}

TEST(ProfileCluster, MakesAClusterThatThePlannerTakes) {
  const auto profile = ProfileOn({"a", "a", "b"});
  ASSERT_TRUE(profile.ok()) << profile.status();
  const auto cluster = ResolveCluster(profile->cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_EQ(cluster->num_nodes(), 2);
  EXPECT_EQ(cluster->nodes[0].count, 2);
  EXPECT_EQ(cluster->nodes[1].count, 1);
  EXPECT_EQ(cluster->nodes[1].name, "b");
  // Of the two ranks of the first node.
  ASSERT_EQ(cluster->nodes[0].collectives.size(), 1u);
  EXPECT_GT(cluster->nodes[0].collectives.at(2).bytes_per_s, 0);
  EXPECT_GE(cluster->nodes[0].collectives.at(2).latency_s, 0);
  EXPECT_TRUE(cluster->nodes[1].collectives.empty());
  // The rank with least memory decides.
  EXPECT_EQ(cluster->DeviceOfNode(0).memory_bytes, 1000);
  EXPECT_EQ(cluster->DeviceOfNode(1).memory_bytes, 1002);
  EXPECT_EQ(profile->cluster.links_size(), 2);
  for (const Cluster::NodeLink& link : profile->cluster.links()) {
    EXPECT_GT(link.link().bytes_per_s(), 0);
    EXPECT_GE(link.link().latency_s(), 0);
  }
}

TEST(ProfileCluster, RefusesMachinesWhoseRanksAreNotInARow) {
  const auto profile = ProfileOn({"a", "b", "a"});
  EXPECT_EQ(profile.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace trireme
