#include "scheduler/search/memory_fit.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/search/search.h"

namespace trireme {
namespace {

ModelShape Model() {
  ModelShape model;
  model.layers = 12;
  model.hidden = 2048;
  model.mlp_hidden = 8192;
  model.heads = 16;
  model.tokens = 8192;
  model.pieces = PiecesByFormulas();
  return model;
}

// Two nodes of eight devices each; `first`: of the first node's devices.
PlannerInput UnlikeMemory(uint64_t first, uint64_t second) {
  PlannerInput input;
  input.model = Model();
  input.global_batch = 128;
  const absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = 2, .devices_per_node = 8});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  input.cluster = *cluster;
  Cluster::Device& other = *input.cluster.add_devices();
  other = input.cluster.devices(0);
  other.set_name("other");
  input.cluster.mutable_devices(0)->set_memory_bytes(first);
  other.set_memory_bytes(second);
  input.cluster.mutable_nodes(1)->set_device("other");
  CandidateSpace& space = input.options.space;
  space.schedules = {Plan::ONE_F_ONE_B};
  space.shardings = {Plan::REPLICATED};
  space.recomputes = {Plan::NONE};
  space.max_tp = space.max_cp = 1;
  space.max_pp = 2;
  space.max_microbatch_size = 1;
  space.max_microbatch_size_without_stages = 1;
  space.offload = OffloadSearch::kNever;
  return input;
}

// What both stages need at least with two of 1F1B's microbatches on the first.
std::vector<int64_t> PeaksOfTwoStages() {
  const PlannerInput input =
      UnlikeMemory(uint64_t{80} << 30, uint64_t{80} << 30);
  const auto cluster = ResolveCluster(input.cluster);
  const auto plan = PlanOfCandidate(input.model, *cluster, input.global_batch,
                                    {.dp = 8, .pp = 2});
  EXPECT_TRUE(plan.ok()) << plan.status();
  const PlanCosts costs = PlanCoster(input.model, *cluster, *plan).CostsOf(0);
  // Of 1F1B.
  return {PeakLowerBound(*plan, costs, 0, /*in_flight=*/2),
          PeakLowerBound(*plan, costs, 1, /*in_flight=*/1)};
}

// Whether a plan fits does not depend on which node the file names first, on
// clusters too large to try every placement either.
TEST(MemoryFit, TheNodesOrderDecidesNothing) {
  const std::vector<int64_t> peaks = PeaksOfTwoStages();
  ASSERT_GT(peaks[0], 1.2 * peaks[1]);
  const auto reserved = UnlikeMemory(1, 1).cluster.devices(0).reserved_bytes();
  // A whole model is more than either has.
  const uint64_t large = reserved + static_cast<uint64_t>(1.05 * peaks[0]);
  const uint64_t small = reserved + static_cast<uint64_t>(1.05 * peaks[1]);
  for (const auto& [first, second] :
       {std::pair(large, small), std::pair(small, large)}) {
    const absl::StatusOr<PlanReport> report =
        MakePlan(UnlikeMemory(first, second));
    ASSERT_TRUE(report.ok()) << report.status();
    const RankedPlan& best = report->best.front();
    EXPECT_TRUE(Fits(best.estimate));
    EXPECT_EQ(best.plan.grid().pp(), 2u);
    // The first stage is where the memory is.
    EXPECT_EQ(best.plan.placement(0) < 8, first == large);
  }
}

// A block moves from the stage with two microbatches to the one with one.
TEST(MemoryFit, StagesAreCutByMemoryWhereTimeAloneDoesNotFit) {
  const std::vector<int64_t> peaks = PeaksOfTwoStages();
  const auto reserved = UnlikeMemory(1, 1).cluster.devices(0).reserved_bytes();
  const uint64_t memory =
      reserved + static_cast<uint64_t>(0.55 * static_cast<double>(peaks[0]) +
                                       0.5 * static_cast<double>(peaks[1]));
  ASSERT_LT(memory - reserved, static_cast<uint64_t>(peaks[0]));
  const absl::StatusOr<PlanReport> report =
      MakePlan(UnlikeMemory(memory, memory));
  ASSERT_TRUE(report.ok()) << report.status();
  const RankedPlan& best = report->best.front();
  EXPECT_TRUE(Fits(best.estimate));
  ASSERT_EQ(best.plan.stages_size(), 2);
  EXPECT_LT(best.plan.stages(0).blocks(), best.plan.stages(1).blocks());
}

}  // namespace
}  // namespace trireme
