#include "scheduler/search/division_bounds.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/search/candidate_plan.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 32;

ModelShape Model() {
  ModelShape model;
  model.layers = 12;
  model.hidden = 1024;
  model.mlp_hidden = 4096;
  model.heads = 16;
  model.tokens = 256;
  model.pieces = PiecesByFormulas({.modulation_parameters = 6 * 1024 * 1024});
  return model;
}

ClusterModel EightDevices() {
  const auto described = DescribeCluster({.device = "H100",
                                          .nodes = 2,
                                          .devices_per_node = 4,
                                          .network = "ndr",
                                          .launch_s = kUsualLaunchSeconds,
                                          .ramp_s = kUsualRampSeconds});
  EXPECT_TRUE(described.ok()) << described.status();
  const auto cluster = ResolveCluster(*described);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *cluster;
}

std::vector<Candidate> SomeCandidates(const ModelShape& model,
                                      const ClusterModel& cluster) {
  CandidateSpace space;
  space.schedules = {Plan::ONE_F_ONE_B, Plan::ZB_V};
  space.shardings = {Plan::REPLICATED, Plan::PARAMETERS};
  space.recomputes = {Plan::NONE, Plan::FULL};
  std::vector<Candidate> candidates =
      EnumerateCandidates(model, cluster, kBatch, space);
  std::erase_if(candidates, [](const Candidate& candidate) {
    return candidate.verdict != VerdictCode::kPending;
  });
  return candidates;
}

// A bound above what a finer split takes would lose the fastest plan without a
// word; one far below all would leave nothing out.
TEST(DivisionBounds, NoFinerSplitIsFasterAndSomeAreKnownToBeSlow) {
  const ModelShape model = Model();
  const ClusterModel cluster = EightDevices();
  const std::vector<Candidate> candidates = SomeCandidates(model, cluster);
  DivisionBounds bounds(model);
  EXPECT_EQ(bounds.StepSeconds(candidates.front(), kBatch), 0);
  for (const Candidate& candidate : candidates) {
    if (candidate.tp * candidate.cp > 2) continue;
    const auto plan = PlanOfCandidate(model, cluster, kBatch, candidate);
    ASSERT_TRUE(plan.ok()) << plan.status();
    bounds.Add(candidate, *plan, PlanCoster(model, cluster, *plan).CostsOf(0));
  }
  double tightest = 0, fastest = 1e9;
  std::vector<double> bounds_s;
  for (const Candidate& candidate : candidates) {
    const auto plan = PlanOfCandidate(model, cluster, kBatch, candidate);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto estimate = EstimatePlan(model, cluster, *plan);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    const double bound_s = bounds.StepSeconds(candidate, kBatch);
    fastest = std::min(fastest, estimate->step_s);
    if (candidate.tp * candidate.cp <= 2) continue;
    EXPECT_LE(bound_s, estimate->step_s) << ToText(candidate);
    bounds_s.push_back(bound_s);
    tightest = std::max(tightest, bound_s / estimate->step_s);
  }
  EXPECT_GT(tightest, 0.5);
  EXPECT_GT(std::count_if(bounds_s.begin(), bounds_s.end(),
                          [&](double bound) { return bound > fastest; }),
            0);
}

// A piece that was measured to gain more than its ranks, as where it begins to
// fit a cache, is allowed for.
TEST(DivisionBounds, MeasuredGainsLoosenThem) {
  ModelShape model = Model();
  const ClusterModel cluster = EightDevices();
  const Candidate coarse = {.dp = 8, .microbatch_size = 2};
  Candidate fine = coarse;
  fine.tp = 2;
  fine.dp = 4;
  const auto bound = [&] {
    DivisionBounds bounds(model);
    const auto plan = PlanOfCandidate(model, cluster, kBatch, coarse);
    EXPECT_TRUE(plan.ok()) << plan.status();
    bounds.Add(coarse, *plan, PlanCoster(model, cluster, *plan).CostsOf(0));
    return bounds.StepSeconds(fine, kBatch);
  };
  for (const int64_t tp : {1, 2}) {
    model.measured.push_back({.piece = ModelPiece::kBlock,
                              .device = cluster.devices[0].name,
                              .tp = tp,
                              .forward_s = 1.0 / static_cast<double>(tp),
                              .backward_s = 2.0 / static_cast<double>(tp)});
  }
  const double even = bound();
  model.measured.back().forward_s /= 3;
  model.measured.back().backward_s /= 3;
  EXPECT_NEAR(bound(), even / 3, 0.05 * even);
}

}  // namespace
}  // namespace trireme
