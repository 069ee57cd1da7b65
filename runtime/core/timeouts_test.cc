#include "runtime/core/timeouts.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Timeouts, InnerOnesEndBeforeOuterOnes) {
  EXPECT_TRUE(CheckOrder(Timeouts()).ok()) << CheckOrder(Timeouts());
  for (const int lost : {0, 4, 10, 25, 60, 3600}) {
    for (const int communication : {1, 60, 86400}) {
      const absl::Status status = CheckOrder(Timeouts{
          .lost = seconds(lost), .communication = seconds(communication)});
      EXPECT_TRUE(status.ok()) << status;
    }
  }
  EXPECT_TRUE(CheckOrder(Timeouts{.heartbeat = milliseconds(20)}).ok());
}

// Who lets ranks be silent for two minutes would lose them earlier: all of them
// after 15 s, cut-off ones after 25 s, and by their own end after 60 s.
TEST(Timeouts, WhatOutlastsALostRankMovesWithIt) {
  const Timeouts patient{.lost = seconds(120)};
  EXPECT_EQ(patient.all, seconds(125));
  EXPECT_EQ(patient.cut_off(), seconds(135));
  EXPECT_EQ(patient.given_up, seconds(170));
  EXPECT_EQ(patient.folder, seconds(200));
  const Timeouts usual;
  EXPECT_EQ(usual.all, seconds(15));
  EXPECT_EQ(usual.cut_off(), seconds(25));
  EXPECT_EQ(usual.given_up, seconds(60));
  EXPECT_EQ(usual.folder, seconds(90));
  EXPECT_EQ(Timeouts{.lost = seconds(0)}.given_up, usual.given_up);
}

// A disk that is read-only for some seconds must not use up five starts, and
// one lost rank must not wait.
TEST(Timeouts, StartsInVainFollowOneAnotherEverMoreSlowly) {
  const Timeouts usual;
  EXPECT_EQ(usual.before_start(1), seconds(0));
  EXPECT_EQ(usual.before_start(2), seconds(1));
  EXPECT_EQ(usual.before_start(3), seconds(2));
  EXPECT_EQ(usual.before_start(7), seconds(32));
  EXPECT_EQ(usual.before_start(8), seconds(60));
  EXPECT_EQ(usual.before_start(int64_t{1} << 62), seconds(60));
  EXPECT_FALSE(CheckOrder(Timeouts{.again = seconds(60)}).ok());
}

// A rank would be lost whose one report was slow.
TEST(Timeouts, ALossBeforeAReportCanComeIsRefused) {
  const absl::Status status = CheckOrder(Timeouts{.lost = seconds(2)});
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("--lost_after_s: found 2 s, expected more than the 3 "
                        "s of naming a silent rank"));
}

TEST(Timeouts, EveryLinkOfTheOrderIsChecked) {
  EXPECT_FALSE(CheckOrder(Timeouts{.call = milliseconds(500)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.look = seconds(4)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.all = seconds(10)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.daemon_idle = seconds(0)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.given_up = seconds(25)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.folder = seconds(60)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.rank_zero = seconds(3)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.drain = seconds(601)}).ok());
  EXPECT_FALSE(CheckOrder(Timeouts{.warning = seconds(20)}).ok());
}

TEST(Timeouts, ALaunchSaysThemInTwoLines) {
  const std::string text = TimeoutsText(Timeouts{.lost = seconds(60)});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_THAT(text, AllOf(HasSubstr("every 0.2 s"),
                          HasSubstr("named after 3 s, lost 60 s, all of them "
                                    "65 s, cut off 75 s"),
                          HasSubstr("collective waits 600 s")));
  EXPECT_THAT(TimeoutsText(Timeouts{.lost = seconds(0)}),
              HasSubstr("never lost for that"));
}

}  // namespace
}  // namespace trireme
