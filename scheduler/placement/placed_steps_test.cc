#include "scheduler/placement/placed_steps.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/search/candidate_plan.h"

namespace trireme {
namespace {

ModelShape Model() {
  ModelShape model;
  model.layers = 6;
  model.hidden = 1024;
  model.mlp_hidden = 4096;
  model.heads = 16;
  model.tokens = 256;
  model.pieces = PiecesByFormulas();
  return model;
}

// Nodes of one device, of unlike speed and with unlike ways to their hosts.
ClusterModel UnlikeNodes(int64_t nodes) {
  const absl::StatusOr<Cluster> described = DescribeCluster(
      {.nodes = nodes, .devices_per_node = 1, .network = "ethernet-100"});
  EXPECT_TRUE(described.ok()) << described.status();
  Cluster cluster = *described;
  cluster.clear_devices();
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    Cluster::Node& node = *cluster.mutable_nodes(i);
    Cluster::Device& device = *cluster.add_devices();
    device = described->devices(0);
    device.set_name(node.name());
    device.set_to_device_bytes_per_s(1e8 * (1 + i));
    node.set_device(node.name());
    node.set_slowdown(1 + 0.25 * (i / 2));
  }
  absl::StatusOr<ClusterModel> model = ResolveCluster(cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

void ExpectWhatEstimatesGive(const Candidate& candidate) {
  const ClusterModel cluster =
      UnlikeNodes(int64_t{candidate.dp} * candidate.pp);
  const absl::StatusOr<Plan> plan =
      PlanOfCandidate(Model(), cluster, 8, candidate);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const ModelShape model = Model();
  PlacedSteps steps(model, cluster, *plan);
  std::vector<int32_t> physical(plan->placement().begin(),
                                plan->placement().end());
  std::sort(physical.begin(), physical.end());
  do {
    Plan placed = *plan;
    PlaceAt(physical, placed);
    const absl::StatusOr<Estimate> estimate =
        EstimatePlan(model, cluster, placed);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    const absl::StatusOr<double> step_s = steps.StepOf(physical);
    ASSERT_TRUE(step_s.ok()) << step_s.status();
    EXPECT_DOUBLE_EQ(*step_s, estimate->step_s);
  } while (std::next_permutation(physical.begin(), physical.end()));
}

// A replica whose ranks stay is as fast as its expert group, of which others
// come and go.
TEST(PlacedSteps, ReplicasFollowTheRanksOfTheirExpertGroups) {
  ModelShape model = Model();
  model.experts = 2;
  model.expert_hidden = 4096;
  model.pieces = [of_transformer = model.pieces](
                     const ModelShape& shape, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
    ModelPieces pieces = of_transformer(shape, split, recompute, deferred);
    pieces.blocks.front().collectives.push_back(
        {.group = PieceCollective::Group::kExperts,
         .kind = PieceCollective::Kind::kAllToAll,
         .bytes = 1 << 24,
         .forward = 2,
         .backward = 2});
    return pieces;
  };
  const absl::StatusOr<Cluster> described =
      DescribeCluster({.nodes = 3, .devices_per_node = 2});
  ASSERT_TRUE(described.ok()) << described.status();
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  absl::StatusOr<Plan> plan =
      PlanOfCandidate(model, *cluster, 6, {.dp = 6, .ep = 2});
  ASSERT_TRUE(plan.ok()) << plan.status();
  PlacedSteps steps(model, *cluster, *plan);
  // Two groups over two nodes each, then none; reductions go alike.
  std::vector<double> seconds;
  for (const std::vector<int32_t>& physical : std::vector<std::vector<int32_t>>{
           {0, 2, 4, 5, 3, 1}, {0, 1, 4, 5, 3, 2}}) {
    PlaceAt(physical, *plan);
    const absl::StatusOr<Estimate> estimate =
        EstimatePlan(model, *cluster, *plan);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    const absl::StatusOr<double> step_s = steps.StepOf(physical);
    ASSERT_TRUE(step_s.ok()) << step_s.status();
    EXPECT_DOUBLE_EQ(*step_s, estimate->step_s);
    seconds.push_back(*step_s);
  }
  EXPECT_LT(seconds[1], seconds[0]);
}

TEST(PlacedSteps, AreWhatEstimatesGive) {
  ExpectWhatEstimatesGive({.dp = 2, .pp = 2});
}

// Steps are remembered by all that they depend on, copies too.
TEST(PlacedSteps, OfPlansThatOffloadTooDependOnTheWaysToTheHosts) {
  ExpectWhatEstimatesGive({.pp = 3, .offload = true, .resident_units = 1});
}

}  // namespace
}  // namespace trireme
