// What becomes of a run whose loss goes wrong.

#include "trainer/health/step_judge.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Verdict = StepJudge::Verdict;
using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

StepJudge JudgeBy(HealthConfig::Policy policy, double spike_factor = 0,
                  bool overflow_is_usual = false) {
  HealthConfig config;
  config.set_on_bad_loss(policy);
  config.set_spike_factor(spike_factor);
  return {config, overflow_is_usual};
}

Verdict Judge(StepJudge& judge, int64_t step, double loss, double norm = 1) {
  return judge.Decide(step, loss, judge.Check(step, loss, norm));
}

TEST(StepJudgeTest, WhatIsNoNumberIsNamed) {
  StepJudge judge = JudgeBy(HealthConfig::STOP);
  EXPECT_THAT(MessageOf(judge.Check(7, kNan, 1)),
              HasSubstr("step 7: the loss is nan"));
  EXPECT_THAT(MessageOf(judge.Check(7, 2, kInfinity)),
              HasSubstr("the gradient's norm is inf at a loss of 2"));
  EXPECT_EQ(Judge(judge, 7, 2, kNan), Verdict::kStop);
  EXPECT_EQ(Judge(judge, 7, 2), Verdict::kSound);
}

// The loss scaler lowers its scale and goes on.
TEST(StepJudgeTest, AnOverflowInFp16IsNoTrouble) {
  StepJudge judge = JudgeBy(HealthConfig::STOP, 0, /*overflow_is_usual=*/true);
  EXPECT_EQ(Judge(judge, 1, 2, kInfinity), Verdict::kSound);
  EXPECT_EQ(Judge(judge, 2, kInfinity, kInfinity), Verdict::kStop);
}

TEST(StepJudgeTest, LeavesAFewStepsInARowOut) {
  StepJudge judge = JudgeBy(HealthConfig::SKIP);
  for (int i = 0; i < 2; ++i) {
    for (int n = 0; n < StepJudge::kMostLeftOutInARow; ++n) {
      EXPECT_EQ(Judge(judge, n, kNan, kNan), Verdict::kLeaveOut);
    }
    if (i == 1) break;
    EXPECT_EQ(Judge(judge, 9, 1), Verdict::kSound);
  }
  EXPECT_EQ(Judge(judge, 20, kNan, kNan), Verdict::kStop);
}

TEST(StepJudgeTest, RollsBackUntilThatDoesNotHelp) {
  StepJudge judge = JudgeBy(HealthConfig::ROLL_BACK);
  for (int i = 0; i < StepJudge::kMostRollBacks; ++i) {
    EXPECT_EQ(Judge(judge, 7, kNan), Verdict::kRollBack);
    EXPECT_EQ(Judge(judge, 5, 1), Verdict::kSound);
  }
  EXPECT_EQ(Judge(judge, 7, kNan), Verdict::kStop);
}

TEST(StepJudgeTest, ARollBackThatHelpedDoesNotCount) {
  StepJudge judge = JudgeBy(HealthConfig::ROLL_BACK);
  for (int step = 10; step < 100; step += 10) {
    EXPECT_EQ(Judge(judge, step, kNan), Verdict::kRollBack);
    EXPECT_EQ(Judge(judge, step + 1, 1), Verdict::kSound);
  }
}

TEST(StepJudgeTest, ASpikeIsFarAboveTheMedian) {
  StepJudge judge = JudgeBy(HealthConfig::SKIP, 3);
  EXPECT_EQ(Judge(judge, 1, 100), Verdict::kSound) << "nothing is known yet";
  for (int step = 2; step < 40; ++step) {
    EXPECT_EQ(Judge(judge, step, step % 2 ? 1.0 : 2.5), Verdict::kSound);
  }
  EXPECT_THAT(MessageOf(judge.Check(40, 9, 1)),
              HasSubstr("health.spike_factor"));
  EXPECT_EQ(Judge(judge, 40, 9), Verdict::kLeaveOut);
  StepJudge indifferent = JudgeBy(HealthConfig::SKIP);
  for (int step = 1; step < 40; ++step) Judge(indifferent, step, 1);
  EXPECT_EQ(Judge(indifferent, 40, 1e9), Verdict::kSound);
}

// Else a resumed run would take for sound what the uninterrupted one did not.
TEST(StepJudgeTest, RemembersTheLossesBeforeAResume) {
  StepJudge judge = JudgeBy(HealthConfig::SKIP, 3);
  judge.Remember(std::vector<double>(StepJudge::kFewestLosses, 1.0));
  EXPECT_EQ(Judge(judge, 40, 9), Verdict::kLeaveOut);
}

}  // namespace
}  // namespace trireme
