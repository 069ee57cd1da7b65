// Which learning rate each step has.

#include "trainer/rank/training_setup.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

using Decay = LearningRateSchedule::Decay;

LearningRateSchedule Schedule(Decay decay) {
  return {.peak = 0.8,
          .warmup_steps = 4,
          .decay = decay,
          .final = decay == Decay::kConstant ? 0.0 : 0.2,
          .total_steps = 12};
}

TEST(LearningRateSchedule, WarmsUpLinearly) {
  for (const Decay decay : {Decay::kConstant, Decay::kCosine, Decay::kLinear}) {
    for (int64_t step = 1; step <= 4; ++step) {
      EXPECT_DOUBLE_EQ(Schedule(decay).At(step), 0.2 * step);
    }
  }
}

TEST(LearningRateSchedule, ReachesTheFinalRateAtTheLastStep) {
  EXPECT_EQ(Schedule(Decay::kConstant).At(12), 0.8);
  for (const Decay decay : {Decay::kCosine, Decay::kLinear}) {
    EXPECT_DOUBLE_EQ(Schedule(decay).At(8), 0.5);  // half way
    EXPECT_DOUBLE_EQ(Schedule(decay).At(12), 0.2);
    // More steps were added to a run that is done.
    EXPECT_DOUBLE_EQ(Schedule(decay).At(20), 0.2);
  }
  EXPECT_DOUBLE_EQ(Schedule(Decay::kLinear).At(6), 0.65);
  EXPECT_GT(Schedule(Decay::kCosine).At(6), 0.65);
}

}  // namespace
}  // namespace trireme
