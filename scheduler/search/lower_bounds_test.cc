#include "scheduler/search/lower_bounds.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/placement/node_assignments.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidate_costing.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/memory_fit.h"
#include "scheduler/search/unlike_clusters_testing.h"

namespace trireme {
namespace {

// The search discards plans by these bounds: one above the truth would discard
// the best plan. Every candidate, at a few placements each.
TEST(LowerBounds, AreBelowTheSimulation) {
  for (const std::vector<uint32_t>& devices :
       std::vector<std::vector<uint32_t>>{
           {4}, {2, 2}, {2, 1, 1}, {1, 1, 1, 1, 1, 1}}) {
    for (const bool hides_collectives : {true, false}) {
      // What is hidden depends on the pieces, not on where they run.
      if (!hides_collectives && devices.size() != 2) continue;
      PlannerInput input = UnlikeCluster(devices, 7);
      input.global_batch = 12;
      input.options.space.max_microbatch_size = 2;
      input.options.space.max_microbatch_size_without_stages = 2;
      input.model.hides_collectives = hides_collectives;
      // Unlike in the shares of embedding, blocks and head as well.
      Cluster::Device& other = *input.cluster.add_devices();
      other = input.cluster.devices(0);
      other.set_name("other");
      other.set_achieved_bf16_flops(other.achieved_bf16_flops() / 4);
      input.cluster.mutable_nodes(0)->set_device("other");
      // Copies that hide and copies that do not, in and out.
      input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(2e9);
      input.cluster.mutable_devices(1)->set_to_host_bytes_per_s(2e9);
      input.options.space.offload = OffloadSearch::kToo;
      const auto cluster = ResolveCluster(input.cluster);
      ASSERT_TRUE(cluster.ok()) << cluster.status();
      double tightest = 0;
      for (const Candidate& candidate :
           EnumerateCandidates(input.model, *cluster, input.global_batch,
                               input.options.space)) {
        if (candidate.verdict != VerdictCode::kPending) continue;
        int visited = 0;
        NodeAssignments(*cluster, candidate.tp)
            .ForEach([&](const std::vector<int32_t>& nodes) {
              if (visited++ % 193 != 0) return;
              const auto plan = PlanOfCandidate(
                  input.model, *cluster, input.global_batch, candidate,
                  PhysicalRanks(*cluster, candidate.tp, nodes));
              ASSERT_TRUE(plan.ok()) << plan.status();
              const auto estimate = EstimatePlan(input.model, *cluster, *plan);
              ASSERT_TRUE(estimate.ok()) << estimate.status();
              const double step_s = estimate->step_s * (1 + 1e-12);
              const PlanCoster coster(input.model, *cluster, *plan);
              const std::vector<int32_t> in_flight =
                  MostInFlight(OrderOf(*plan));
              for (int32_t dp = 0; dp < candidate.dp; ++dp) {
                const PlanCosts costs = coster.CostsOf(dp);
                const double placed =
                    PlacedStepLowerBound(*plan, costs, in_flight);
                ASSERT_LE(StepLowerBound(*plan, costs), step_s)
                    << ToText(candidate);
                ASSERT_LE(placed, step_s) << ToText(candidate);
                tightest = std::max(tightest, placed / step_s);
                for (int32_t pp = 0; pp < candidate.pp; ++pp) {
                  ASSERT_LE(PeakLowerBound(*plan, costs, pp, in_flight[pp]),
                            estimate->peak[pp].total())
                      << ToText(candidate);
                }
              }
              ASSERT_LE(ArithmeticLowerBound(input.model, *cluster, *plan),
                        step_s)
                  << ToText(candidate);
            });
        if (HasFatalFailure()) return;
      }
      EXPECT_GT(tightest, 0.99);
    }
  }
}

// Of each block much of the time goes into rows to experts and back.
ModelShape WithRowsToExperts(int64_t layers, int64_t experts) {
  ModelShape model;
  model.layers = layers;
  model.hidden = 64;
  model.mlp_hidden = 256;
  model.heads = 4;
  model.tokens = 256;
  model.experts = experts;
  model.expert_hidden = 256;
  model.pieces = [of_transformer = PiecesByFormulas()](
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
  return model;
}

// Which nodes the ranks of an expert group are on is the placement's to choose:
// a bound that takes the first choice for granted would refuse what is faster.
TEST(CandidateCosting, NoPlacementOfExpertsIsFasterThanTheBound) {
  const ModelShape model = WithRowsToExperts(/*layers=*/2, /*experts=*/3);
  auto described = DescribeCluster({.nodes = 6, .devices_per_node = 1});
  ASSERT_TRUE(described.ok()) << described.status();
  described->mutable_default_link()->set_bytes_per_s(1e9);
  // Two triangles of fast links and a faster one between them, by which nodes
  // in order of their links begin with 0, 1 and 4: not a triangle.
  for (const auto& [a, b, bytes_per_s] :
       {std::tuple(0, 1, 100e9), std::tuple(0, 2, 90e9), std::tuple(0, 3, 90e9),
        std::tuple(2, 3, 90e9), std::tuple(1, 4, 90e9), std::tuple(1, 5, 90e9),
        std::tuple(4, 5, 90e9)}) {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
      Cluster::NodeLink& link = *described->add_links();
      link.set_from(from);
      link.set_to(to);
      *link.mutable_link() = described->default_link();
      link.mutable_link()->set_bytes_per_s(bytes_per_s);
    }
  }
  const auto cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  Candidate candidate = {.dp = 6, .ep = 3};
  const auto likely = CandidateCosting(model, *cluster, /*global_batch=*/6)
                          .Cost(/*index=*/0, candidate);
  ASSERT_TRUE(likely.ok()) << likely.status();
  EXPECT_GT(candidate.step_s, 0);
  const auto plan = PlanOfCandidate(model, *cluster, 6, candidate,
                                    /*physical=*/{0, 2, 3, 1, 4, 5});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto estimate = EstimatePlan(model, *cluster, *plan);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_LE(candidate.step_s, estimate->step_s);
}

// Of three stages of two devices one is on two nodes: the bound may not take
// for granted that it is the one in the middle, nor what it would be cut to.
TEST(CandidateCosting, NoPlacementOfStagesOverNodesIsFasterThanTheBound) {
  auto described = DescribeCluster(
      {.nodes = 2, .devices_per_node = 3, .network = "ethernet-25"});
  ASSERT_TRUE(described.ok()) << described.status();
  const auto cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  for (const int64_t layers : {4, 5, 7}) {
    const ModelShape model = WithRowsToExperts(layers, /*experts=*/2);
    const Candidate candidate = {.dp = 2, .pp = 3, .ep = 2};
    Candidate costed = candidate;
    const auto likely = CandidateCosting(model, *cluster, /*global_batch=*/64)
                            .Cost(/*index=*/0, costed);
    ASSERT_TRUE(likely.ok()) << likely.status();
    EXPECT_GT(costed.step_s, 0);
    for (const std::vector<int32_t>& physical :
         std::vector<std::vector<int32_t>>{
             {0, 1, 2, 3, 4, 5}, {0, 3, 1, 2, 4, 5}, {0, 1, 3, 4, 2, 5}}) {
      const auto plan =
          PlanOfCandidate(model, *cluster, 64, candidate, physical);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto estimate = EstimatePlan(model, *cluster, *plan);
      ASSERT_TRUE(estimate.ok()) << estimate.status();
      EXPECT_LE(costed.step_s, estimate->step_s * (1 + 1e-12)) << layers;
    }
  }
}

// Gradients of offloaded blocks are summed as they leave: over which links is
// the placement's to choose. Nodes in order of their links have the second
// stage's on a slow one.
TEST(CandidateCosting, NoPlacementOfOffloadedBlocksIsFasterThanTheBound) {
  auto described = DescribeCluster({.nodes = 4, .devices_per_node = 1});
  ASSERT_TRUE(described.ok()) << described.status();
  described->mutable_default_link()->set_bytes_per_s(1e8);
  for (const auto& [a, b, bytes_per_s] :
       {std::tuple(0, 1, 100e9), std::tuple(0, 3, 90e9),
        std::tuple(1, 2, 90e9)}) {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
      Cluster::NodeLink& link = *described->add_links();
      link.set_from(from);
      link.set_to(to);
      *link.mutable_link() = described->default_link();
      link.mutable_link()->set_bytes_per_s(bytes_per_s);
    }
  }
  const auto cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ModelShape model;
  model.layers = 8;
  model.hidden = 256;
  model.mlp_hidden = 1024;
  model.heads = 4;
  model.tokens = 16;
  model.pieces = PiecesByFormulas();
  for (const Plan::Sharding sharding :
       {Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
    Candidate candidate = {
        .dp = 2, .pp = 2, .sharding = sharding, .offload = true};
    const auto likely = CandidateCosting(model, *cluster, /*global_batch=*/8)
                            .Cost(/*index=*/0, candidate);
    ASSERT_TRUE(likely.ok()) << likely.status();
    EXPECT_GT(candidate.step_s, 0);
    const auto plan = PlanOfCandidate(model, *cluster, 8, candidate,
                                      /*physical=*/{0, 3, 1, 2});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto estimate = EstimatePlan(model, *cluster, *plan);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    EXPECT_LE(candidate.step_s, estimate->step_s * (1 + 1e-12))
        << Plan::Sharding_Name(sharding);
  }
}

// Buckets belong to stages, of which a rank may have several.
TEST(LikelySeconds, CountsTheBucketsOfEveryStage) {
  const PlannerInput input = UnlikeCluster({2, 2}, 7);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const auto plan = PlanOfCandidate(
      input.model, *cluster, 24,
      {.dp = 2, .pp = 2, .chunks = 2, .schedule = Plan::INTERLEAVED});
  ASSERT_TRUE(plan.ok()) << plan.status();
  PlanCosts costs = PlanCoster(input.model, *cluster, *plan).CostsOf(0);
  ASSERT_EQ(costs.buckets.size(), size_t{4});
  const double before = LikelySeconds(*plan, costs);
  costs.buckets[3] += 1000;
  EXPECT_GT(LikelySeconds(*plan, costs), before);
}

}  // namespace
}  // namespace trireme
