#include "scheduler/search/subsets.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/pieces/transformer_pieces_testing.h"

namespace trireme {
namespace {

ModelShape SmallModel() {
  ModelShape model;
  model.layers = 4;
  model.hidden = 256;
  model.mlp_hidden = 1024;
  model.heads = 4;
  model.tokens = 256;
  model.pieces = PiecesByFormulas();
  return model;
}

PlannerInput Input(const ClusterPreset& preset) {
  PlannerInput input;
  input.model = SmallModel();
  input.global_batch = 16;
  const absl::StatusOr<Cluster> cluster = DescribeCluster(preset);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  input.cluster = *cluster;
  return input;
}

double StepOf(const PlannerInput& input) {
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? report->best.front().estimate.step_s : 0;
}

// Two devices whose link is not worth its messages.
TEST(Subsets, OneDeviceIsFasterThanTwoBehindASlowLink) {
  PlannerInput input = Input(
      {.device = "H100", .nodes = 2, .devices_per_node = 1, .network = "ndr"});
  input.cluster.mutable_default_link()->set_bytes_per_s(1e6);
  const double step_s = StepOf(input);
  const auto found = FasterSubsets(input, step_s);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->faster.size(), size_t{1});
  EXPECT_EQ(found->faster[0].subset, (DeviceSubset{{0, 1}}));
  EXPECT_LT(2 * found->faster[0].step_s, step_s);
  const std::string text = SubsetText(input, *found, step_s);
  EXPECT_NE(text.find("--only node0 "), std::string::npos) << text;
  // The search among these devices finds what was promised.
  input.cluster = OnlyDevices(input.cluster, found->faster[0].subset);
  EXPECT_NEAR(StepOf(input) / found->faster[0].step_s, 1, 1e-6);
}

TEST(Subsets, ASlowNodeIsBetterLeftOut) {
  PlannerInput input = Input({.nodes = 3, .devices_per_node = 1});
  input.model.hidden = 4096;
  input.model.mlp_hidden = 16384;
  input.model.tokens = 1024;
  input.cluster.mutable_nodes(1)->set_slowdown(100);
  const auto found = FasterSubsets(input, StepOf(input));
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_FALSE(found->faster.empty());
  EXPECT_EQ(found->faster[0].subset, (DeviceSubset{{0, 1}, {2, 1}}));
}

// Where all are needed, it says so.
TEST(Subsets, NoneIsFasterWhereTheWorkIsLarge) {
  PlannerInput input = Input({.nodes = 2, .devices_per_node = 2});
  input.model.hidden = 4096;
  input.model.mlp_hidden = 16384;
  input.model.tokens = 1024;
  const auto found = FasterSubsets(input, StepOf(input));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->faster.empty());
  EXPECT_EQ(found->tried, 2);  // a node, a device
}

TEST(Subsets, TriedAreWithoutTheWorstAndTheOdd) {
  absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = 9, .devices_per_node = 8});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  cluster->mutable_nodes(4)->set_count(7);
  cluster->mutable_nodes(7)->set_slowdown(2);
  const auto model = ResolveCluster(*cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<DeviceSubset> subsets = SubsetsToTry(*model, 2);
  const auto without = [&](int32_t node, size_t nodes) {
    return std::any_of(subsets.begin(), subsets.end(),
                       [&](const DeviceSubset& subset) {
                         return subset.size() == nodes &&
                                std::none_of(subset.begin(), subset.end(),
                                             [&](const NodeShare& share) {
                                               return share.node == node;
                                             });
                       });
  };
  EXPECT_TRUE(without(7, 8));
  EXPECT_TRUE(without(4, 8));
  EXPECT_TRUE(std::count(subsets.begin(), subsets.end(), DeviceSubset{{0, 1}}));
  for (size_t i = 0; i < subsets.size(); ++i) {
    EXPECT_EQ(std::count(subsets.begin(), subsets.end(), subsets[i]), 1);
  }
}

TEST(Subsets, AreNamedAsTheyAreRead) {
  const absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = 3, .devices_per_node = 8});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const auto subset = ParseSubset(*cluster, "node2:4,node0");
  ASSERT_TRUE(subset.ok()) << subset.status();
  EXPECT_EQ(*subset, (DeviceSubset{{0, 8}, {2, 4}}));
  EXPECT_EQ(SubsetName(*cluster, *subset), "node0,node2:4");
  const Cluster only = OnlyDevices(*cluster, *subset);
  ASSERT_EQ(only.nodes_size(), 2);
  EXPECT_EQ(only.nodes(1).name(), "node2");
  EXPECT_EQ(only.nodes(1).count(), 4u);
  for (const char* wrong :
       {"", "node9", "node0:9", "node0:0", "node0:x", "node0,node0"}) {
    EXPECT_FALSE(ParseSubset(*cluster, wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace trireme
