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

TEST(PlacedSteps, AreWhatEstimatesGive) {
  ExpectWhatEstimatesGive({.dp = 2, .pp = 2});
}

// Steps are remembered by all that they depend on, copies too.
TEST(PlacedSteps, OfPlansThatOffloadTooDependOnTheWaysToTheHosts) {
  ExpectWhatEstimatesGive({.pp = 3, .offload = true, .resident_units = 1});
}

}  // namespace
}  // namespace trireme
