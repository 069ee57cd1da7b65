#include "trainer/profile/link_profile.h"

#include <mutex>
#include <numeric>
#include <set>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

TEST(RoundRobin, EveryTwoMeetOnceAndNobodyPlaysTwiceInARound) {
  for (int n = 1; n <= 9; ++n) {
    std::set<std::pair<int, int>> met;
    for (const auto& round : RoundRobin(n)) {
      std::set<int> players;
      for (const auto& pair : round) {
        EXPECT_TRUE(met.insert(pair).second) << n;
        EXPECT_TRUE(players.insert(pair.first).second) << n;
        EXPECT_TRUE(players.insert(pair.second).second) << n;
      }
      EXPECT_EQ(static_cast<int>(round.size()), n / 2);
    }
    EXPECT_EQ(static_cast<int>(met.size()), n * (n - 1) / 2);
  }
}

// Nodes of unlike sizes, one of them a single rank.
TEST(MeasureLinks, FindsEveryPairOfNodesInBothDirections) {
  const std::vector<int> node_of = {0, 0, 0, 1, 2, 2};
  std::mutex mutex;
  LinkMeasurements measured;
  RunThreadRanks(6, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 30);
    std::vector<int> everyone(6);
    std::iota(everyone.begin(), everyone.end(), 0);
    const auto world = factory.Create(everyone, "test");
    auto found = MeasureLinks(
        {.large_bytes = 1 << 16, .largest_bytes = 1 << 20, .repetitions = 3},
        device, *world, node_of);
    const std::lock_guard lock(mutex);
    if (rank == 0) measured = std::move(found);
  });
  std::set<std::pair<int, int>> pairs;
  EXPECT_EQ(measured.cards.size(), 3u);
  for (const auto& [nodes, link] : measured.links) {
    pairs.insert(nodes);
    EXPECT_GT(link.bytes_per_s, 0) << nodes.first << " to " << nodes.second;
    EXPECT_GE(link.latency_s, 0);
  }
  // Node 1 has one rank: nothing inside it.
  const std::set<std::pair<int, int>> expected = {
      {0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1}, {2, 2}};
  EXPECT_EQ(pairs, expected);
}

}  // namespace
}  // namespace trireme
