// The planner's promise on small clusters: nothing that exhaustive search finds
// is more than a hundredth faster than the chosen plan.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/placement/node_assignments.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/search.h"
#include "scheduler/search/unlike_clusters_testing.h"

namespace trireme {
namespace {

struct Fastest {
  double step_s = std::numeric_limits<double>::infinity();
  std::string plan;
};

// Simulates every candidate that can be divided on every placement, each with
// the cut that goes with it.
Fastest ByExhaustiveSearch(const PlannerInput& input) {
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(input.cluster);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  Fastest fastest;
  for (const Candidate& candidate : EnumerateCandidates(
           input.model, *cluster, input.global_batch, input.options.space)) {
    if (candidate.verdict != VerdictCode::kPending) continue;
    NodeAssignments(*cluster, candidate.tp)
        .ForEach([&](const std::vector<int32_t>& nodes) {
          const auto plan = PlanOfCandidate(
              input.model, *cluster, input.global_batch, candidate,
              PhysicalRanks(*cluster, candidate.tp, nodes));
          ASSERT_TRUE(plan.ok()) << plan.status();
          const auto estimate = EstimatePlan(input.model, *cluster, *plan);
          ASSERT_TRUE(estimate.ok()) << estimate.status();
          if (estimate->step_s < fastest.step_s &&
              WorstOverflow(*estimate).bytes <= 0) {
            fastest = {estimate->step_s, ToText(candidate)};
          }
        });
  }
  return fastest;
}

void ExpectNothingMuchFaster(const PlannerInput& input) {
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->complete);
  const RankedPlan& chosen = report->best.front();
  EXPECT_LE(WorstOverflow(chosen.estimate).bytes, 0);
  const Fastest fastest = ByExhaustiveSearch(input);
  EXPECT_LE(chosen.estimate.step_s, 1.01 * fastest.step_s)
      << "chose " << ToText(chosen.candidate) << ", but " << fastest.plan
      << " is " << 100 * (chosen.estimate.step_s / fastest.step_s - 1)
      << " % faster";
}

// Many placements: those that a closed form ranks first are up to a tenth
// slower than the best.
TEST(SearchOracle, NoPlacementIsMuchFaster) {
  for (const std::vector<uint32_t>& devices :
       std::vector<std::vector<uint32_t>>{{1, 1, 1, 1, 1}, {4, 4}, {3, 2, 1}}) {
    SCOPED_TRACE(testing::Message() << devices.size() << " nodes");
    PlannerInput input = UnlikeCluster(devices, 3);
    input.options.space.schedules = {Plan::ONE_F_ONE_B, Plan::ZB_H1};
    input.options.space.shardings = {Plan::REPLICATED, Plan::OPTIMIZER};
    input.options.space.recomputes = {Plan::NONE};
    input.options.space.max_microbatch_size = 1;
    ExpectNothingMuchFaster(input);
  }
}

// Many candidates: all schedules, shardings and kinds of recomputation.
TEST(SearchOracle, NoCandidateIsMuchFaster) {
  PlannerInput input = UnlikeCluster({2, 1, 1}, 1);
  input.options.space.max_microbatch_size = 4;
  ExpectNothingMuchFaster(input);
}

// A node with little memory, which only some placements spare, and cuts that
// suit it: what does not fit with the ranks in order may fit elsewhere.
TEST(SearchOracle, NothingThatFitsElsewhereIsMuchFaster) {
  for (const uint32_t seed : {1, 3}) {
    SCOPED_TRACE(seed);
    PlannerInput input = UnlikeCluster({1, 1, 1, 1}, seed);
    Cluster& cluster = input.cluster;
    Cluster::Device& small = *cluster.add_devices();
    small = cluster.devices(0);
    small.set_name("small");
    small.set_memory_bytes(small.reserved_bytes() + (uint64_t{4} << 30));
    cluster.mutable_nodes(0)->set_device("small");
    cluster.mutable_devices(0)->set_memory_bytes(small.reserved_bytes() +
                                                 (uint64_t{7} << 30));
    input.options.space.shardings = {Plan::REPLICATED, Plan::OPTIMIZER};
    input.options.space.max_microbatch_size = 1;
    ExpectNothingMuchFaster(input);
  }
}

}  // namespace
}  // namespace trireme
