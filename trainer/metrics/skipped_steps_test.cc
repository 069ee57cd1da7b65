#include "trainer/metrics/skipped_steps.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(SkippedStepsTest, StepsThatFindTheScaleAreNoError) {
  SkippedSteps skipped(3);
  for (int64_t step = 1; step <= 40; ++step) {
    ASSERT_TRUE(skipped.Note(step, 3 + step, 1e5, /*last=*/false).ok());
  }
  EXPECT_EQ(skipped.in_a_row(), 40);
  EXPECT_TRUE(skipped.Note(41, 43, 1, /*last=*/false).ok());
  EXPECT_EQ(skipped.in_a_row(), 0);
  EXPECT_TRUE(skipped.Note(42, 44, 1, /*last=*/true).ok());
}

TEST(SkippedStepsTest, ManyInARowAreAnError) {
  SkippedSteps skipped(0);
  ASSERT_TRUE(skipped.Note(1, 0, 1, /*last=*/false).ok());
  absl::Status status;
  int64_t step = 1;
  while (status.ok()) {
    ++step;
    status = skipped.Note(step, step - 1, 1e30, /*last=*/false);
  }
  EXPECT_EQ(step, 1 + SkippedSteps::kMostInARow);
  EXPECT_THAT(MessageOf(status), HasSubstr("loss scale of 1e+30"));
}

TEST(SkippedStepsTest, ARunOfNothingElseIsAnErrorAtItsEnd) {
  SkippedSteps skipped(0);
  ASSERT_TRUE(skipped.Note(1, 1, 1e30, /*last=*/false).ok());
  EXPECT_THAT(MessageOf(skipped.Note(2, 2, 1e30, /*last=*/true)),
              HasSubstr("the last 2 steps overflowed"));
}

}  // namespace
}  // namespace trireme
