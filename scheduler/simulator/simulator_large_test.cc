// Long pipelines: that they run at all, and to the right end. How fast is
// tools/bench/search_benchmark.cc's to say.

#include <vector>

#include "gtest/gtest.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

Program OneFOneB(int32_t ranks, int32_t microbatches) {
  return BuildProgram(OneFOneBOrder(ranks, microbatches),
                      OneStagePerRank(ranks), microbatches,
                      std::vector<int32_t>(ranks, 1));
}

TEST(SimulatorLarge, StepsOfAMillionInstructions) {
  constexpr int32_t kRanks = 200, kMicrobatches = 1000;
  const Program program = OneFOneB(kRanks, kMicrobatches);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 1});
  cost.default_link.bytes_per_s = 10;
  const absl::StatusOr<Simulation> result = Simulate(program, cost);
  ASSERT_TRUE(result.ok()) << result.status();
  // Equal stages, messages of c = 0.1 s: (n + p - 1) C + 2 (p - 1) c n / p +
  // 2 (p - 2) c.
  EXPECT_NEAR(result->step_s,
              (kMicrobatches + kRanks - 1) * 3.0 +
                  2 * (kRanks - 1) * 0.1 * kMicrobatches / kRanks +
                  2 * (kRanks - 2) * 0.1,
              1e-6);
}

// Four replicas whose neighbouring ranks share the network cards of nodes of
// ten.
TEST(SimulatorLarge, ReplicasThatMeetInChannels) {
  constexpr int32_t kRanks = 100, kMicrobatches = 200, kReplicas = 4;
  const Program program = OneFOneB(kRanks, kMicrobatches);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 1});
  cost.links.resize(size_t{kRanks} * kRanks);
  for (int32_t rank = 0; rank + 1 < kRanks; ++rank) {
    for (const bool up : {true, false}) {
      const int32_t from = up ? rank : rank + 1;
      const int32_t to = up ? rank + 1 : rank;
      LinkCost& link = cost.links[size_t(from) * kRanks + to];
      link.bytes_per_s = 10;
      if (from / 10 != to / 10) {
        link.channels[0] = {.number = from / 10, .s_per_byte = 0.1};
      }
    }
  }
  const double alone = Simulate(program, cost)->step_s;
  const std::vector<CostModel> costs(kReplicas, cost);
  const auto results = SimulateReplicas(program, costs);
  ASSERT_TRUE(results.ok()) << results.status();
  for (const Simulation& result : *results) {
    EXPECT_GT(result.step_s, alone);
    // At worst every message across nodes waits for those of all others.
    EXPECT_LT(result.step_s, 1.5 * alone);
  }
}

}  // namespace
}  // namespace trireme
