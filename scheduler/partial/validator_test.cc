// Each broken rule is reported with the microbatch and node at fault, so that
// a bad plan is refused before it hangs or skews the gradients.

#include "scheduler/partial/validator.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "scheduler/partial/candidate_paths.h"
#include "scheduler/partial/exact_testing.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

// Four stages of one node each, two microbatches of three stages.
SkipInstance Small() {
  SkipInstance instance;
  instance.groups = {{0}, {1}, {2}, {3}};
  instance.forward_s.assign(4, 1.0);
  instance.transfer_s.assign(4, std::vector<double>(4, 0.5));
  instance.path_length = 3;
  instance.microbatches_per_data_node = 3;
  instance.slots_per_node = 2;
  return instance;
}
const std::vector<NodePath> kPaths = {{0, 1, 2}, {0, 1, 3}, {0, 2, 3}};

std::string Error(const SkipInstance& instance,
                  const std::vector<NodePath>& paths) {
  return MessageOf(ValidateSkipPaths(instance, paths));
}

TEST(SkipValidatorTest, AcceptsBalancedPaths) {
  EXPECT_EQ(Error(Small(), kPaths), "");
}

TEST(SkipValidatorTest, ReportsBadPaths) {
  const SkipInstance instance = Small();
  // CC1.
  EXPECT_THAT(Error(instance, {{1, 0, 2}, {0, 1, 3}, {0, 2, 3}}),
              HasSubstr("microbatch 0 node 1: found it first"));
  // CC2.
  EXPECT_THAT(Error(instance, {{0, 1, 2}, {0, 1, 3}, {0, 1, 3}}),
              HasSubstr("stage 2: found 1 visits, expected 3"));
  // CC3.
  EXPECT_THAT(Error(instance, {{0, 1, 2}, {0, 3, 1}, {0, 2, 3}}),
              HasSubstr("microbatch 1 node 1: found swap 1 of distance 2"));
  EXPECT_THAT(Error(instance, {{0, 1, 2}, {0, 1, 1}, {0, 2, 3}}),
              HasSubstr("microbatch 1 node 1: found stage 1 again"));
  // Length.
  EXPECT_THAT(Error(instance, {{0, 1, 2}, {0, 1, 3}, {0, 2}}),
              HasSubstr("microbatch 2: found a path of 2 nodes, expected 3"));
}

TEST(SkipValidatorTest, ReportsAJumpThatIsTooFar) {
  SkipInstance instance = Small();
  instance.rules.max_forward_jump = 1;
  EXPECT_THAT(Error(instance, kPaths),
              HasSubstr("microbatch 1 node 3: found a forward jump of 2"));
}

SkipSchedule Dispatched(const SkipInstance& instance) {
  SkipDispatcher dispatcher(instance);
  EXPECT_TRUE(dispatcher.Run(kPaths, {2, 0, 1, 2, 0, 1, 2, 0, 1}));
  return {kPaths, dispatcher.order()};
}

TEST(SkipValidatorTest, DispatchedSchedulesAreValidAndTimedAlike) {
  const SkipInstance instance = Small();
  SkipDispatcher dispatcher(instance);
  ASSERT_TRUE(dispatcher.Run(kPaths, {2, 0, 1, 2, 0, 1, 2, 0, 1}));
  const SkipSchedule schedule = {kPaths, dispatcher.order()};
  EXPECT_TRUE(ValidateSkipSchedule(instance, schedule).ok());
  const auto times = TimeSkipSchedule(instance, schedule);
  ASSERT_TRUE(times.ok());
  EXPECT_NEAR(times->makespan_s, dispatcher.makespan_s(), 1e-9);
}

TEST(SkipValidatorTest, ReportsBackwardThatIsNotMirrored) {
  const SkipInstance instance = Small();
  SkipSchedule schedule = Dispatched(instance);
  // The backward of microbatch 0 on node 1 goes to node 3 instead.
  auto& order = schedule.order[1];
  const SkipTask backward = {0, 5};
  const auto at = std::find(order.begin(), order.end(), backward);
  ASSERT_NE(at, order.end());
  order.erase(at);
  schedule.order[3].push_back(backward);
  EXPECT_THAT(MessageOf(ValidateSkipSchedule(instance, schedule)),
              HasSubstr("microbatch 0 node 1: found no task 5"));
}

TEST(SkipValidatorTest, ReportsTooManyHeld) {
  const SkipInstance instance = Small();
  SkipSchedule schedule = Dispatched(instance);
  // All three forwards on the data node before any backward.
  schedule.order[0] = {{0, 0}, {1, 0}, {2, 0}, {0, 3}, {1, 3},
                       {2, 3}, {0, 6}, {1, 6}, {2, 6}};
  EXPECT_THAT(MessageOf(ValidateSkipSchedule(instance, schedule)),
              HasSubstr("microbatch 2 node 0: found 3 microbatches held"));
}

TEST(SkipValidatorTest, ReportsCollisionsAndEarlyStarts) {
  const SkipInstance instance = Small();
  const SkipSchedule schedule = Dispatched(instance);
  SkipTimes times = *TimeSkipSchedule(instance, schedule);
  const SkipTimes good = times;
  ASSERT_TRUE(ValidateSkipTimes(instance, schedule, times).ok());
  const SkipTask second = schedule.order[0][1];
  times.start_s[second.microbatch * 7 + second.task] -= 0.5;
  EXPECT_THAT(MessageOf(ValidateSkipTimes(instance, schedule, times)),
              HasSubstr("when the node is free"));
  times = good;
  times.start_s[1] -= 0.1;  // microbatch 0 on node 1
  EXPECT_THAT(MessageOf(ValidateSkipTimes(instance, schedule, times)),
              HasSubstr("when its message arrives"));
}

// As many paths as the rules allow orders of stages, of one node each.
size_t CountOrders(int32_t stages, int32_t path_length, int32_t max_swaps) {
  SkipInstance instance;
  for (int32_t stage = 0; stage < stages; ++stage) {
    instance.groups.push_back({stage});
    instance.forward_s.push_back(1);
  }
  instance.transfer_s.assign(stages, std::vector<double>(stages, 0.1));
  instance.path_length = path_length;
  instance.microbatches_per_data_node = 1;
  instance.rules.max_swaps = max_swaps;
  const CandidateList candidates = CandidatePaths(instance, 0);
  EXPECT_TRUE(candidates.all);
  return candidates.paths.size();
}

// The published counts of legal orders without and with swaps.
TEST(SkipInstanceTest, CountsLegalStageOrders) {
  EXPECT_EQ(CountOrders(6, 4, 0), 10);
  EXPECT_EQ(CountOrders(6, 4, 2), 22);
  EXPECT_EQ(CountOrders(6, 6, 0), 1);
  EXPECT_EQ(CountOrders(6, 6, 2), 8);
  EXPECT_EQ(CountOrders(8, 6, 0), 21);
  EXPECT_EQ(CountOrders(8, 6, 2), 111);
}

}  // namespace
}  // namespace trireme
