// Which ranks a launch finds in a run's folder before it starts any.

#include "tools/restarts.h"

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/core/processes.h"
#include "trainer/coordinator/launch_record.h"

namespace trireme {
namespace {

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

}  // namespace
}  // namespace trireme
