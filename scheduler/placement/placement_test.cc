#include "scheduler/placement/placement.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/placement/placement_cost.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

ModelShape Model() {
  ModelShape model;
  model.layers = 24;
  model.hidden = 2048;
  model.mlp_hidden = 8192;
  model.heads = 16;
  model.tokens = 4096;
  model.pieces = PiecesByFormulas();
  return model;
}

Cluster SlowNetwork(int64_t nodes, int64_t devices) {
  const absl::StatusOr<Cluster> cluster = DescribeCluster(
      {.nodes = nodes, .devices_per_node = devices, .network = "ethernet-100"});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *cluster;
}

void SetLink(Cluster& cluster, int from, int to, double bytes_per_s) {
  Cluster::NodeLink& link = *cluster.add_links();
  link.set_from(from);
  link.set_to(to);
  *link.mutable_link() = cluster.default_link();
  link.mutable_link()->set_bytes_per_s(bytes_per_s);
  link.mutable_link()->set_shared_bytes_per_s(bytes_per_s);
}

ClusterModel Resolved(const Cluster& cluster) {
  absl::StatusOr<ClusterModel> model = ResolveCluster(cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

Plan PlanOf(uint32_t tp, uint32_t dp, uint32_t pp) {
  Plan plan;
  plan.mutable_grid()->set_tp(tp);
  plan.mutable_grid()->set_dp(dp);
  plan.mutable_grid()->set_pp(pp);
  plan.set_microbatches(16);
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = int64_t{tp} * dp * pp,
                         .global_batch = int64_t{dp} * 16,
                         .num_blocks = 24,
                         .heads = 16});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

double CostInOrder(const ClusterModel& cluster, const Plan& plan,
                   const std::vector<int32_t>& order) {
  PlacementCosts costs(Model(), cluster, plan);
  std::vector<int32_t> nodes;
  for (size_t rank = 0; rank < order.size(); rank += costs.unit_ranks()) {
    nodes.push_back(cluster.node_of_rank[order[rank]]);
  }
  return costs.Set(nodes);
}

// Links of pseudo-random rates, different in each direction.
Cluster Heterogeneous(int nodes, int devices, uint32_t seed) {
  Cluster cluster = SlowNetwork(nodes, devices);
  for (int from = 0; from < nodes; ++from) {
    for (int to = 0; to < nodes; ++to) {
      if (from == to) continue;
      seed = seed * 1664525 + 1013904223;
      SetLink(cluster, from, to, 1e9 * (1 + (seed >> 24) / 32.0));
    }
  }
  return cluster;
}

// All 720 orders of six one-device nodes against the annealer alone.
TEST(Placement, AnnealingFindsTheBruteForceOptimum) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    for (const uint32_t pp : {6u, 3u}) {
      const ClusterModel cluster = Resolved(Heterogeneous(6, 1, seed));
      const Plan plan = PlanOf(1, 6 / pp, pp);
      std::vector<int32_t> order(6);
      std::iota(order.begin(), order.end(), 0);
      double least = std::numeric_limits<double>::infinity();
      do {
        least = std::min(least, CostInOrder(cluster, plan, order));
      } while (std::next_permutation(order.begin(), order.end()));
      const Placement annealed = PlaceRanks(
          Model(), cluster, plan, {.moves = 3000, .exhaustive_limit = 0});
      EXPECT_FALSE(annealed.exhaustive);
      EXPECT_NEAR(annealed.cost_s, least, 1e-9 * least);
      const Placement searched = PlaceRanks(Model(), cluster, plan, {});
      EXPECT_TRUE(searched.exhaustive);
      EXPECT_NEAR(searched.cost_s, least, 1e-9 * least);
      EXPECT_NEAR(CostInOrder(cluster, plan, annealed.physical),
                  annealed.cost_s, 1e-9 * least);
    }
  }
}

// What the moves add up must be what a fresh evaluation gives, at any size.
TEST(Placement, IncrementalCostsAreWholeCosts) {
  const ClusterModel cluster = Resolved(Heterogeneous(8, 2, 5));
  const Plan plan = PlanOf(1, 4, 4);
  const Placement placed = PlaceRanks(Model(), cluster, plan, {.moves = 500});
  EXPECT_FALSE(placed.exhaustive);
  EXPECT_NEAR(CostInOrder(cluster, plan, placed.physical), placed.cost_s,
              1e-9 * placed.cost_s);
  std::vector<int32_t> sorted = placed.physical;
  std::sort(sorted.begin(), sorted.end());
  for (int32_t rank = 0; rank < 16; ++rank) EXPECT_EQ(sorted[rank], rank);
}

// A pipeline over the planted slow link would crawl.
TEST(Placement, AvoidsAPlantedSlowLink) {
  Cluster described = SlowNetwork(4, 2);
  SetLink(described, 1, 2, 1e8);
  SetLink(described, 2, 1, 1e8);
  const ClusterModel cluster = Resolved(described);
  Plan plan = PlanOf(2, 1, 4);
  const Placement placed = PlaceRanks(Model(), cluster, plan, {});
  for (int stage = 0; stage + 1 < 4; ++stage) {
    const int32_t a = cluster.node_of_rank[placed.physical[2 * stage]];
    const int32_t b = cluster.node_of_rank[placed.physical[2 * stage + 2]];
    EXPECT_NE(std::pair(std::min(a, b), std::max(a, b)), std::pair(1, 2));
  }
  const absl::StatusOr<Estimate> before = EstimatePlan(Model(), cluster, plan);
  plan.mutable_placement()->Assign(placed.physical.begin(),
                                   placed.physical.end());
  const absl::StatusOr<Estimate> after = EstimatePlan(Model(), cluster, plan);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_LT(after->step_s, 0.9 * before->step_s);
}

TEST(Placement, OnASymmetricClusterAllNodeOrdersTie) {
  const ClusterModel cluster = Resolved(SlowNetwork(4, 1));
  const Plan plan = PlanOf(1, 2, 2);
  std::vector<int32_t> order = {0, 1, 2, 3};
  const double cost = CostInOrder(cluster, plan, order);
  do {
    EXPECT_DOUBLE_EQ(CostInOrder(cluster, plan, order), cost);
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_DOUBLE_EQ(PlaceRanks(Model(), cluster, plan, {}).cost_s, cost);
}

TEST(Placement, TheSeedDecidesAlone) {
  const ClusterModel cluster = Resolved(Heterogeneous(8, 2, 7));
  const Plan plan = PlanOf(1, 2, 8);
  const PlacementOptions options = {.seed = 3, .moves = 1000};
  EXPECT_EQ(PlaceRanks(Model(), cluster, plan, options).physical,
            PlaceRanks(Model(), cluster, plan, options).physical);
}

}  // namespace
}  // namespace trireme
