#include "scheduler/cluster/collectives.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/cluster/nodes_testing.h"

namespace trireme {
namespace {

// Only measuring finds what a loaded machine's collectives take.
TEST(Collectives, MeasuredOnesCorrectTheFormulas) {
  const std::vector<int32_t> inside = {0, 1, 2, 3}, across = {0, 1, 8, 9};
  ClusterModel cluster = Nodes(2, 8);
  auto by_links = [&](const std::vector<int32_t>& ranks, CollectiveKind kind) {
    return RingOf(cluster, ranks, 8).SecondsOf(kind);
  };
  const CollectiveSeconds scatter =
      by_links(inside, CollectiveKind::kReduceScatter);
  const CollectiveSeconds reduce = by_links(across, CollectiveKind::kAllReduce);
  cluster.collective_times = {{CollectiveKind::kReduceScatter,
                               1,
                               4,
                               {3e-3, 5 * scatter.s_per_byte},
                               scatter},
                              {CollectiveKind::kAllReduce,
                               2,
                               2,
                               {4e-3, 7 * reduce.s_per_byte},
                               reduce}};
  EXPECT_NEAR(RingOf(cluster, inside, 8).ReduceScatter(2e6),
              3e-3 + 5 * 2e6 * scatter.s_per_byte, 1e-12);
  EXPECT_NEAR(RingOf(cluster, across, 8).AllReduce(2e6),
              4e-3 + 7 * 2e6 * reduce.s_per_byte, 1e-12);
  // Each kind for itself, networks and insides of nodes too.
  for (const CollectiveKind kind :
       {CollectiveKind::kAllGather, CollectiveKind::kAllReduce}) {
    EXPECT_EQ(RingOf(cluster, inside, 8).SecondsOf(kind).Of(2e6),
              RingOf(Nodes(2, 8), inside, 8).SecondsOf(kind).Of(2e6));
  }
  // Another shape's rate is off by as much as the nearest one's.
  const std::vector<int32_t> pair = {0, 1};
  EXPECT_NEAR(RingOf(cluster, pair, 8)
                  .SecondsOf(CollectiveKind::kReduceScatter)
                  .s_per_byte,
              5 * RingOf(Nodes(2, 8), pair, 8)
                      .SecondsOf(CollectiveKind::kReduceScatter)
                      .s_per_byte,
              1e-20);
  // A link that a what-if slows down slows down what was measured over it.
  cluster.nodes[0].link.bytes_per_s /= 2;
  cluster.nodes[0].link.latency_s += 1e-3;
  EXPECT_NEAR(RingOf(cluster, inside, 8).ReduceScatter(2e6),
              3e-3 + 3e-3 + 10 * 2e6 * scatter.s_per_byte, 1e-12);
  cluster.node_links[1].bytes_per_s /= 1e3;
  EXPECT_GT(RingOf(cluster, across, 8).AllReduce(2e6),
            4e-3 + 1e3 * 2e6 * reduce.s_per_byte);
}

TEST(Collectives, RingsAreTheUsualFormulas) {
  const ClusterModel one = Nodes(1, 8);
  const ClusterLink& link = one.nodes[0].link;
  const RingCost ring = RingOf(one, {0, 1, 2, 3}, 4);
  EXPECT_NEAR(ring.AllReduce(1e9),
              2 * (3 * link.latency_s + 0.75e9 / link.bytes_per_s), 1e-12);
  EXPECT_EQ(RingOf(one, {5}, 1).AllReduce(1e9), 0);

  const ClusterModel two = Nodes(2, 4);
  const ClusterLink& network = two.LinkBetweenNodes(0, 1);
  EXPECT_NEAR(RingOf(two, {0, 1, 4, 5}, 4).ReduceScatter(1e9),
              two.nodes[0].link.latency_s +
                  0.5e9 / two.nodes[0].link.bytes_per_s + network.latency_s +
                  0.25e9 / network.bytes_per_s,
              1e-12);
}

// Bits that do not depend on NCCL cost messages from each rank to each other
// one: between nodes as often as a node has ranks.
TEST(Collectives, SumsInTheOrderOfRanksGoFromEachToEachOther) {
  const ClusterModel two = Nodes(2, 4);
  const ClusterLink& network = two.LinkBetweenNodes(0, 1);
  const std::vector<int32_t> group = {0, 1, 4, 5};
  const RingCost ranks = RingOf(two, group, 4, SumOrder::kRanks);
  const RingCost fast = RingOf(two, group, 4);
  const double latency_s =
      std::max(two.nodes[0].link.latency_s, network.latency_s);
  // A quarter to each of the two others over there; of its own quarter a rank
  // reads all four, and writes the sum.
  const double sent_s = 0.5e9 / network.bytes_per_s;
  const double summed_s = 1.25e9 / two.DeviceOfNode(0).memory_bytes_per_s;
  EXPECT_NEAR(ranks.ReduceScatter(1e9), latency_s + sent_s + summed_s, 1e-12);
  EXPECT_NEAR(ranks.AllReduce(1e9), 2 * (latency_s + sent_s) + summed_s, 1e-12);
  EXPECT_GT(ranks.AllReduce(1e9), fast.AllReduce(1e9));
  // What is gathered is not summed.
  EXPECT_EQ(ranks.AllGather(1e9), fast.AllGather(1e9));
  // What goes to several nodes goes by turns.
  const ClusterModel four = Nodes(4, 1);
  EXPECT_NEAR(RingOf(four, {0, 1, 2, 3}, 1, SumOrder::kRanks)
                  .SecondsOf(CollectiveKind::kReduceScatter)
                  .s_per_byte,
              0.75 / four.LinkBetweenNodes(0, 1).bytes_per_s +
                  1.25 / four.DeviceOfNode(0).memory_bytes_per_s,
              1e-20);
  // Collectives of this program's own are in that order already.
  ClusterModel direct = two;
  direct.direct_collectives = true;
  EXPECT_EQ(RingOf(direct, group, 4, SumOrder::kRanks),
            RingOf(direct, group, 4));
}

// Placements are compared by what groups cost one after another: a link's cost
// kept from the wrong direction, or from other flows, would choose a slow one.
TEST(Collectives, GroupsOneAfterAnotherCostWhatEachAloneDoes) {
  ClusterModel cluster = Nodes(11, 2);
  for (size_t i = 0; i < cluster.node_links.size(); ++i) {
    cluster.node_links[i].bytes_per_s /= 1 + static_cast<double>(i);
    cluster.node_links[i].shared_bytes_per_s =
        1.5 * cluster.node_links[i].bytes_per_s;
  }
  for (const bool direct : {false, true}) {
    cluster.direct_collectives = direct;
    for (const SumOrder order : {SumOrder::kOfCluster, SumOrder::kRanks}) {
      GroupRings rings(cluster, order);
      for (const int64_t flows : {1, 2, 1}) {
        for (const std::vector<int32_t>& group :
             std::vector<std::vector<int32_t>>{
                 {0, 2, 4},
                 {4, 2, 0},
                 {6, 7, 1},
                 {0, 1},
                 {3},
                 {21, 3, 18, 0, 12, 13, 5, 8, 10, 15, 17}}) {
          EXPECT_EQ(rings.RingOf(group, flows),
                    RingOf(cluster, group, flows, order));
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme
