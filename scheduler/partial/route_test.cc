#include "scheduler/partial/route.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/partial/plan.h"
#include "scheduler/partial/validator.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

Cluster WithoutNodes() {
  Cluster cluster;
  Cluster::Device& device = *cluster.add_devices();
  device.set_name("a");
  device.set_peak_bf16_flops(1e12);
  device.set_peak_fp32_flops(1e12);
  device.set_memory_bytes(1 << 30);
  device.set_memory_bytes_per_s(1e12);
  return cluster;
}

ClusterModel Resolved(const Cluster& cluster) {
  const auto model = ResolveCluster(cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

// Eight nodes of one device each; node 2 is far from all others.
ClusterModel FarNode() {
  Cluster cluster = WithoutNodes();
  for (int i = 0; i < 8; ++i) {
    Cluster::Node& node = *cluster.add_nodes();
    node.set_device("a");
    node.set_count(1);
    for (int other = 0; other < 8; ++other) {
      if (other == i || (i != 2 && other != 2)) continue;
      Cluster::NodeLink& link = *cluster.add_links();
      link.set_from(i);
      link.set_to(other);
      link.mutable_link()->set_bytes_per_s(1e6);
    }
  }
  cluster.mutable_default_link()->set_bytes_per_s(1e9);
  return Resolved(cluster);
}

ModelShape Model() {
  ModelShape model;
  model.name = "test";
  model.layers = 8;
  model.hidden = 128;
  model.mlp_hidden = 512;
  model.heads = 4;
  model.tokens = 64;
  model.pieces = PiecesByFormulas();
  return model;
}

PlanContext Context() {
  return {.world_size = 8, .global_batch = 12, .num_blocks = 8, .heads = 4};
}

Plan FourStagesOfTwo() {
  Plan plan;
  plan.mutable_grid()->set_dp(2);
  plan.mutable_grid()->set_pp(4);
  plan.set_microbatch_size(1);
  plan.mutable_skip()->set_stages_per_microbatch(3);
  const auto resolved = ResolvePlan(plan, Context());
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

// Four nodes of two devices; what a node sends to others passes its card.
ClusterModel SharedCards(double card_bytes_per_s) {
  Cluster cluster = WithoutNodes();
  for (int i = 0; i < 4; ++i) {
    Cluster::Node& node = *cluster.add_nodes();
    node.set_device("a");
    node.set_count(2);
    node.mutable_link()->set_bytes_per_s(1e9);
    node.set_card_bytes_per_s(card_bytes_per_s);
  }
  cluster.mutable_default_link()->set_bytes_per_s(1e8);
  return Resolved(cluster);
}

// Two ranks that share a card cannot both have its rate: a plan that was timed
// as if they could would disappoint.
TEST(SkipRoute, MessagesOfANodeShareItsCard) {
  const Plan plan = FourStagesOfTwo();
  const auto fast = EstimateSkipPlan(Model(), SharedCards(1e12), plan);
  const auto slow = EstimateSkipPlan(Model(), SharedCards(1e8), plan);
  ASSERT_TRUE(fast.ok() && slow.ok()) << fast.status() << slow.status();
  EXPECT_GT(slow->paths_s, 1.02 * fast->paths_s);
  // Alone, a message is as fast as before.
  const SkipInstance instance = RoutedInstance(Model(), SharedCards(1e8), plan);
  EXPECT_EQ(instance.transfer_s[0][2],
            RoutedInstance(Model(), SharedCards(1e12), plan).transfer_s[0][2]);
  SkipTraffic traffic(instance);
  const double alone = traffic.Send(0, 2, 1.0);
  EXPECT_NEAR(alone - 1, instance.transfer_s[0][2], 1e-12);
  // Ranks 0 and 1 are on one node.
  EXPECT_NEAR(traffic.Send(1, 3, 1.0) - alone, instance.transfer_s[1][3],
              1e-12);
}

TEST(SkipRoute, OnlyTheBlocksThatAreRecomputedTakeLonger) {
  const ClusterModel cluster = FarNode();
  std::vector<double> backward;
  for (const int blocks : {0, 1, 2}) {
    Plan plan = FourStagesOfTwo();
    if (blocks > 0) {
      plan.set_recompute(Plan::FULL);
      plan.set_recompute_blocks(blocks);
    }
    const SkipInstance instance = RoutedInstance(Model(), cluster, plan);
    backward.push_back(instance.backward_s[2]);
    EXPECT_GE(plan.stages(1).blocks(), 2u);
  }
  EXPECT_GT(backward[1], backward[0]);
  EXPECT_NEAR(backward[2] - backward[1], backward[1] - backward[0], 1e-12);
}

TEST(SkipRoute, CountsMemoryAndRefusesWhatDoesNotFit) {
  const auto estimate = EstimateSkipPlan(Model(), FarNode(), FourStagesOfTwo());
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  ASSERT_EQ(estimate->peak.size(), size_t{8});
  EXPECT_TRUE(CheckSkipMemory(*estimate).ok());
  for (const MemoryBytes& peak : estimate->peak) {
    EXPECT_GT(peak.parameters, 0);
    EXPECT_GT(peak.activations, 0);
  }
  SkipEstimate small = *estimate;
  small.limit[3] = small.peak[3].total() - 1;
  const absl::Status refused = CheckSkipMemory(small);
  EXPECT_NE(refused.message().find("rank 3"), std::string::npos) << refused;
  EXPECT_NE(refused.message().find("(1 fewer)"), std::string::npos) << refused;
}

// Communicators take memory that nothing else can have.
TEST(SkipRoute, CommunicatorsLeaveLessMemory) {
  ClusterModel cluster = FarNode();
  const auto before = EstimateSkipPlan(Model(), cluster, FourStagesOfTwo());
  ASSERT_TRUE(before.ok()) << before.status();
  cluster.devices[0].communicator_bytes = 1 << 20;
  const auto after = EstimateSkipPlan(Model(), cluster, FourStagesOfTwo());
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_LE(after->limit[0], before->limit[0] - (2 << 20));
}

// A rank is lost: nothing goes there, nor to a stage all of whose ranks are.
TEST(SkipRoute, GoesAroundRanksThatAreLost) {
  const ClusterModel cluster = FarNode();
  const Plan plan = FourStagesOfTwo();
  for (const std::vector<int32_t>& without :
       {std::vector<int32_t>{3}, std::vector<int32_t>{4, 5, 7}}) {
    const auto routed =
        RouteSkips(Model(), cluster, plan, {.evaluations = 2000}, without);
    ASSERT_TRUE(routed.ok()) << routed.status();
    for (const Plan::Skip::Path& path : routed->plan.skip().paths()) {
      for (const uint32_t rank : path.ranks()) {
        EXPECT_EQ(std::count(without.begin(), without.end(), rank), 0)
            << path.ShortDebugString();
      }
    }
    const auto again = ResolvePlan(routed->plan, Context());
    EXPECT_TRUE(again.ok()) << again.status();
  }
}

TEST(SkipRoute, RefusesToGoAroundWhatMustBeVisited) {
  const auto refusal = [](const std::vector<int32_t>& without) {
    return std::string(RouteSkips(Model(), FarNode(), FourStagesOfTwo(),
                                  {.evaluations = 10}, without)
                           .status()
                           .message());
  };
  EXPECT_NE(refusal({1}).find("rank 1 of the first stage"), std::string::npos)
      << refusal({1});
  EXPECT_NE(refusal({8}).find("found rank 8, expected 0 to 7"),
            std::string::npos)
      << refusal({8});
  EXPECT_NE(refusal({2, 3, 6, 7})
                .find("found 2 stages that keep a rank, "
                      "expected at least the 3"),
            std::string::npos)
      << refusal({2, 3, 6, 7});
}

// Who skips anyway skips what is far away.
TEST(SkipRoute, AvoidsANodeBehindSlowLinks) {
  const ClusterModel cluster = FarNode();
  const Plan plan = FourStagesOfTwo();
  const auto routed = RouteSkips(Model(), cluster, plan, {.evaluations = 5000});
  ASSERT_TRUE(routed.ok()) << routed.status();
  for (const Plan::Skip::Path& path : routed->plan.skip().paths()) {
    EXPECT_EQ(std::count(path.ranks().begin(), path.ranks().end(), 2u), 0)
        << path.ShortDebugString();
  }
  EXPECT_GE(routed->makespan_s, routed->lower_bound_s);
  const auto before = EstimateSkipPlan(Model(), cluster, plan);
  const auto after = EstimateSkipPlan(Model(), cluster, routed->plan);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_NEAR(after->paths_s, routed->makespan_s, 1e-9);
  EXPECT_GT(after->step_s, after->paths_s);
  EXPECT_LT(after->step_s, before->step_s);
  // It is a plan like any other.
  const auto again = ResolvePlan(routed->plan, Context());
  EXPECT_TRUE(again.ok()) << again.status();
}

}  // namespace
}  // namespace trireme
