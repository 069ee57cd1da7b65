#include "runtime/core/log.h"

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(LogTest, LineNamesSeverityFileLineAndText) {
  testing::internal::CaptureStderr();
  LOG(WARNING) << "link is " << 7 << " times slower";
  const int line = __LINE__ - 1;
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.substr(0, 2), "W ");
  EXPECT_NE(text.find("log_test.cc:" + std::to_string(line) +
                      "] link is 7 times slower\n"),
            std::string::npos)
      << text;
}

TEST(LogTest, PassingCheckEvaluatesItsOperandsOnceAndNotTheMessage) {
  int condition_calls = 0;
  int message_calls = 0;
  CHECK(++condition_calls == 1) << ++message_calls;
  CHECK_EQ(++condition_calls, 2) << ++message_calls;
  CHECK_OK((++condition_calls, absl::OkStatus())) << ++message_calls;
  EXPECT_EQ(condition_calls, 3);
  EXPECT_EQ(message_calls, 0);
}

TEST(LogTest, CheckInAnIfWithoutBracesLeavesItsElseAlone) {
  bool reached = false;
  if (reached)
    CHECK_EQ(1, 1);
  else
    reached = true;
  EXPECT_TRUE(reached);
}

TEST(LogDeathTest, FailedCheckAbortsWithFileConditionAndMessage) {
  const int ranks = 3;
  EXPECT_DEATH(
      CHECK(ranks % 2 == 0) << "ranks is " << ranks,
      "F .*log_test\\.cc:[0-9]+\\] Check failed: ranks % 2 == 0 ranks is 3");
}

TEST(LogDeathTest, FailedComparisonShowsBothOperands) {
  const int found = 3;
  EXPECT_DEATH(CHECK_LT(found, 2) << "stages",
               "Check failed: found < 2 \\(3 vs\\. 2\\) stages");
}

TEST(LogDeathTest, FailedCheckOkShowsTheStatus) {
  EXPECT_DEATH(CHECK_OK(absl::NotFoundError("no plan")) << "at start",
               "is OK \\(NOT_FOUND: no plan\\) at start");
}

}  // namespace
}  // namespace trireme
