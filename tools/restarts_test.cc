// Which ranks a launch finds in a run's folder before it starts any, and what
// it starts.

#include "tools/restarts.h"

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/core/processes.h"
#include "trainer/coordinator/launch_record.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// Those that are there are not kept waiting while hosts are looked up, nor is
// one started beside them.
TEST(RestartsTest, RanksAreThereWhileTheirMpirunIs) {
  const std::string run = testing::TempDir() + "/has_ranks";
  std::filesystem::remove_all(run);
  std::filesystem::create_directories(run);
  EXPECT_FALSE(HasRanks(run));
  const LaunchRecord record = {
      .address = {.endpoint = "127.0.0.1:1", .token = std::string(64, 'a')},
      .start = 1,
      .host = HostName(),
      .mpirun = getpid(),
      .mpirun_ticks = *StartTicksOf(getpid())};
  const auto has_ranks = [&](const LaunchRecord& of) {
    CHECK_OK(WriteLaunchRecord(of, run));
    return HasRanks(run);
  };
  EXPECT_TRUE(has_ranks(record));
  LaunchRecord elsewhere = record;
  elsewhere.host = "another";
  EXPECT_FALSE(has_ranks(elsewhere));
  // The number is another process's by now.
  LaunchRecord over = record;
  ++over.mpirun_ticks;
  EXPECT_FALSE(has_ranks(over));
}

// Each host's ranks are told of its own paths and of no others'.
TEST(RestartsTest, HostsWithPathsOfTheirOwnAreStartedApart) {
  LaunchedJob job = {.program = {"/bin/trireme", "train", "job.textproto"},
                     .ranks = 7};
  job.machines.hosts = {{"a", 2}, {"b", 1}, {"c", 2, "/d:/e"}, {"d", 2}};
  job.hear_us = false;
  const absl::StatusOr<RankStart> start = StartOfJob(job);
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_EQ(start->ranks, 7);
  // As mpirun takes it: programs between colons.
  std::vector<std::string> parts = {""};
  for (const std::string& word : start->command) {
    if (word == ":") {
      parts.emplace_back();
    } else {
      parts.back() += word + " ";
    }
  }
  ASSERT_THAT(parts, SizeIs(3));
  EXPECT_THAT(parts[0], AllOf(StartsWith("mpirun -np 3 "),
                              HasSubstr(" --host a:2,b:1 ")));
  EXPECT_THAT(parts[1], AllOf(StartsWith("-np 2 "), HasSubstr(" --host c:2 "),
                              HasSubstr(" -x TRIREME_PATHS=/d:/e ")));
  EXPECT_THAT(parts[2], AllOf(StartsWith("-np 2 "), HasSubstr(" --host d:2 ")));
  for (const std::string& part : parts) {
    EXPECT_THAT(part, AllOf(HasSubstr(" -x TRIREME_FILES "),
                            EndsWith(" /bin/trireme train job.textproto ")));
    EXPECT_EQ(part == parts[1],
              part.find("TRIREME_PATHS") != std::string::npos);
  }
  // Where all have the same, nothing is taken apart.
  for (Host& host : job.machines.hosts) host.paths = "/d:/e";
  const auto together = StartOfJob(job);
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_THAT(together->command, Not(Contains(":")));
  EXPECT_THAT(together->command, Contains("TRIREME_PATHS=/d:/e"));
}

}  // namespace
}  // namespace trireme
