// Small instances whose best makespans are known from brute force: a wrong
// time model, rule or bound would change one of them.

#include "gtest/gtest.h"
#include "scheduler/partial/exact_testing.h"
#include "scheduler/partial/validator.h"

namespace trireme {
namespace {

// Four stages of one node, forward 1 s, links 0.5 s, 3 microbatches.
SkipInstance Small(int32_t path_length, int32_t swaps) {
  SkipInstance instance;
  instance.groups = {{0}, {1}, {2}, {3}};
  instance.forward_s.assign(4, 1.0);
  instance.transfer_s.assign(4, std::vector<double>(4, 0.5));
  instance.path_length = path_length;
  instance.microbatches_per_data_node = 3;
  instance.rules.max_swaps = swaps;
  return instance;
}

SkipInstance WithLink(SkipInstance instance, int32_t u, int32_t v,
                      double seconds) {
  instance.transfer_s[u][v] = instance.transfer_s[v][u] = seconds;
  return instance;
}

double Best(const SkipInstance& instance) {
  const auto result = SolveSkipExactly(instance, 50'000'000);
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return -1;
  EXPECT_TRUE(ValidateSkipSchedule(instance, result->schedule).ok());
  const auto times = TimeSkipSchedule(instance, result->schedule);
  EXPECT_TRUE(times.ok());
  EXPECT_TRUE(ValidateSkipTimes(instance, result->schedule, *times).ok());
  EXPECT_NEAR(times->makespan_s, result->makespan_s, 1e-9);
  return result->makespan_s;
}

TEST(ExactTest, FindsGoldenMakespans) {
  EXPECT_NEAR(Best(Small(4, 2)), 18.0, 1e-9);
  EXPECT_NEAR(Best(Small(3, 2)), 13.75, 1e-9);
}

TEST(ExactTest, SwapsAroundASlowMiddleLink) {
  EXPECT_NEAR(Best(WithLink(Small(4, 0), 1, 2, 4.0)), 25.0, 1e-9);
  EXPECT_NEAR(Best(WithLink(Small(4, 2), 1, 2, 4.0)), 18.0, 1e-9);
  EXPECT_NEAR(Best(WithLink(Small(3, 2), 1, 2, 4.0)), 17.75, 1e-9);
}

TEST(ExactTest, SwapsAroundASlowReturnLink) {
  EXPECT_NEAR(Best(WithLink(Small(4, 0), 0, 3, 4.0)), 24.25, 1e-9);
  EXPECT_NEAR(Best(WithLink(Small(4, 2), 0, 3, 4.0)), 18.0, 1e-9);
  EXPECT_NEAR(Best(WithLink(Small(3, 2), 0, 3, 4.0)), 19.25, 1e-9);
}

// With one slot microbatches cannot overlap on the data node.
TEST(ExactTest, OneSlotRunsMicrobatchesOneAfterAnother) {
  SkipInstance instance = Small(4, 0);
  instance.slots_per_node = 1;
  const double solo = SoloSeconds(instance, {0, 1, 2, 3});
  EXPECT_NEAR(solo, 14.25, 1e-9);
  EXPECT_NEAR(Best(instance), 3 * solo, 1e-9);
}

TEST(ExactTest, StopsAtItsLimit) {
  EXPECT_EQ(SolveSkipExactly(Small(4, 2), 10).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace trireme
