// What a launch does with signals while its ranks run, in whose place a shell
// stands that sends them.

#include "tools/supervise.h"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/timeouts.h"
#include "tools/launch_log.h"
#include "trainer/coordinator/job_watch.h"

namespace trireme {
namespace {

class SuperviseTest : public ::testing::Test {
 protected:
  SuperviseTest() {
    std::filesystem::remove_all(folder_);
    EXPECT_TRUE(MakeDirectories(folder_).ok());
  }

  // Of a shell whose parent is the launch, and that then goes on for ever.
  SupervisedEnd EndOf(const std::string& script,
                      const Timeouts& timeouts = {}) {
    const SignalQueue signals;
    JobWatch watch(folder_, JobWatch::Clock::now());
    const LaunchLog log(folder_);
    const std::string whole =
        absl::StrCat("cd ", folder_, script, "while :; do sleep 0.05; done\n");
    const StartedRanks ranks = StartRanks({"sh", "-c", whole},
                                          /*environment=*/{}, signals,
                                          /*hear_us=*/true)
                                   .value();
    if (rank_.has_value()) {
      EXPECT_TRUE(watch.Report(*rank_, JobWatch::Clock::now()).ok());
    }
    const SupervisedEnd end = Supervise(
        ranks, signals, timeouts, watch, log, [] {},
        [this](JobWatch::Clock::time_point) {
          return out_of_reach_ || std::filesystem::exists(folder_ + "/gone");
        });
    stops_ = watch.Status(JobWatch::Clock::now()).orders().stops();
    return end;
  }

  const std::string folder_ = testing::TempDir() + "/supervise_test";
  int64_t stops_ = 0;
  // Reports once, before the shell begins.
  std::optional<RankReport> rank_;
  bool out_of_reach_ = false;
};

// As Slurm says it, who may say it twice.
TEST_F(SuperviseTest, WhoseTimeIsUpSavesAndEnds) {
  const SupervisedEnd end = EndOf(R"sh(
trap 'kill -USR1 $PPID; sleep 0.5; touch saved; exit 0' USR1
kill -USR1 $PPID
)sh");
  EXPECT_EQ(end.status, 128 + SIGUSR1);
  EXPECT_TRUE(end.asked);
  EXPECT_EQ(stops_, 1);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/saved"));
}

// Who is queued again when it is cancelled is never rid of; and Slurm cancels
// who takes longer to save than it had time.
TEST_F(SuperviseTest, WhoIsCancelledAfterItsTimeWasUpSavesAndIsCancelled) {
  const SupervisedEnd end = EndOf(R"sh(
trap 'kill -TERM $PPID; sleep 0.5; touch saved; exit 0' USR1
trap 'exit 1' TERM
kill -USR1 $PPID
)sh");
  EXPECT_EQ(end.status, 128 + SIGTERM);
  EXPECT_TRUE(end.asked);
  EXPECT_EQ(stops_, 1);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/saved"));
}

TEST_F(SuperviseTest, ASecondCtrlCEndsAtOnce) {
  const SupervisedEnd end = EndOf(R"sh(
trap 'kill -INT $PPID' USR1
trap 'touch ended; exit 1' TERM
kill -INT $PPID
)sh");
  EXPECT_EQ(end.status, 128 + SIGINT);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/ended"));
}

// As one whose rank died while it started.
TEST_F(SuperviseTest, AnMpirunWhoseRanksNeverReportIsEnded) {
  const SupervisedEnd end = EndOf("\n", {.start = std::chrono::seconds(1)});
  EXPECT_TRUE(end.lost);
  EXPECT_EQ(end.status, 1);
}

// One whose daemon is gone with its machine, for which it would wait.
TEST_F(SuperviseTest, AnMpirunWhoseHostIsGoneIsKilledAtOnce) {
  rank_.emplace().set_world_size(2);
  const Timeouts timeouts = {.lost = std::chrono::seconds(1),
                             .kill = std::chrono::seconds(1000)};
  const std::string waits = "\ntrap '' TERM\n";
  out_of_reach_ = true;
  const auto begin = std::chrono::steady_clock::now();
  const SupervisedEnd end = EndOf(waits, timeouts);
  EXPECT_TRUE(end.lost);
  EXPECT_EQ(end.status, 1);
  EXPECT_LT(std::chrono::steady_clock::now() - begin,
            std::chrono::seconds(100));
}

// With a short --lost_after_s hosts are found gone while ranks are ended.
TEST_F(SuperviseTest, AnMpirunWhoseHostIsFoundGoneLaterIsKilledThen) {
  rank_.emplace().set_world_size(2);
  const auto begin = std::chrono::steady_clock::now();
  const SupervisedEnd end = EndOf(
      "\ntrap 'touch gone' TERM\n",
      {.lost = std::chrono::seconds(1), .kill = std::chrono::seconds(1000)});
  EXPECT_TRUE(end.lost);
  EXPECT_LT(std::chrono::steady_clock::now() - begin,
            std::chrono::seconds(100));
}

// A daemon that is there is to end its ranks before mpirun ends.
TEST_F(SuperviseTest, AnMpirunWhoseHostsAnswerIsGivenTime) {
  rank_.emplace().set_world_size(2);
  const SupervisedEnd end = EndOf(
      "\ntrap 'sleep 0.5; touch ended; exit 1' TERM\n",
      {.lost = std::chrono::seconds(1), .kill = std::chrono::seconds(1000)});
  EXPECT_TRUE(end.lost);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/ended"));
}

}  // namespace
}  // namespace trireme
