#include "tools/mpirun.h"

#include <chrono>
#include <cstdlib>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"

namespace trireme {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::map<std::string, std::string> EnvironmentOf(const RankStart& start) {
  return {start.environment.begin(), start.environment.end()};
}

TEST(MpirunTest, RanksOfThisMachineShareItsProcessors) {
  const RankStart start = StartOf(4096, std::nullopt).value();
  EXPECT_EQ(start.ranks, 4096);
  EXPECT_EQ(EnvironmentOf(start).at("OMP_NUM_THREADS"), "1");
  EXPECT_EQ(EnvironmentOf(start).at("OMPI_MCA_mpi_yield_when_idle"), "1");
}

// How many processors the hosts have is not known here.
TEST(MpirunTest, HostsGetNoThreadsOfThisMachine) {
  unsetenv("OMP_NUM_THREADS");
  const RankStart start = StartOf(std::nullopt, "a:800,b.example:800").value();
  EXPECT_EQ(start.ranks, 1600);
  EXPECT_FALSE(EnvironmentOf(start).contains("OMP_NUM_THREADS"));
  EXPECT_FALSE(EnvironmentOf(start).contains("OMPI_MCA_mpi_yield_when_idle"));
  EXPECT_THAT(start.command, Not(Contains("OMP_NUM_THREADS")));
  EXPECT_THAT(start.command, Contains("OMP_WAIT_POLICY"));

  setenv("OMP_NUM_THREADS", "3", 1);
  EXPECT_THAT(StartOf(std::nullopt, "a:1").value().command,
              Contains("OMP_NUM_THREADS"));
  unsetenv("OMP_NUM_THREADS");
}

// Daemons would end ranks that a patient launch has not given up.
TEST(MpirunTest, DaemonsAreAsPatientAsTheLaunch) {
  const auto idle = [](const Timeouts& timeouts) {
    return EnvironmentOf(StartOf(std::nullopt, "a:1", timeouts).value())
        .at("OMPI_MCA_oob_tcp_keepalive_time");
  };
  EXPECT_EQ(idle(Timeouts()), "10");
  EXPECT_EQ(idle({.lost = std::chrono::seconds(120)}), "120");
  EXPECT_EQ(idle({.lost = std::chrono::hours(100)}), "32767");
}

TEST(MpirunTest, AnAllocationOfSlurmsIsUsedAsItIs) {
  EXPECT_FALSE(SlurmAllocation().has_value());
  setenv("SLURM_JOB_ID", "7", 1);
  setenv("SLURM_NTASKS", "8", 1);
  setenv("SLURM_JOB_NUM_NODES", "2", 1);
  const Allocation allocation = SlurmAllocation().value();
  EXPECT_EQ(allocation.id, "7");
  EXPECT_EQ(allocation.nodes, 2);
  EXPECT_FALSE(allocation.queued_again);
  setenv("SLURM_RESTART_COUNT", "1", 1);
  EXPECT_TRUE(SlurmAllocation()->queued_again);
  const RankStart start = StartInAllocation({}, allocation).value();
  EXPECT_EQ(start.ranks, 8);
  EXPECT_THAT(start.command, Contains("--mpi=pmix"));
  EXPECT_THAT(start.command, Contains("--ntasks=8"));
  EXPECT_EQ(StartInAllocation(4, allocation)->ranks, 4);
  for (const char* name : {"SLURM_JOB_ID", "SLURM_NTASKS",
                           "SLURM_JOB_NUM_NODES", "SLURM_RESTART_COUNT"}) {
    unsetenv(name);
  }
}

// Each of them would train the whole job by itself.
TEST(MpirunTest, TasksThatAreNoRanksAreRefused) {
  EXPECT_TRUE(CheckTasksAreRanks().ok());
  setenv("SLURM_STEP_NUM_TASKS", "2", 1);
  EXPECT_THAT(MessageOf(CheckTasksAreRanks()),
              HasSubstr("found 2 tasks of srun"));
  setenv("PMIX_RANK", "0", 1);
  EXPECT_TRUE(CheckTasksAreRanks().ok());
  unsetenv("PMIX_RANK");
  setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  EXPECT_TRUE(CheckTasksAreRanks().ok());
  unsetenv("SLURM_STEP_NUM_TASKS");
}

TEST(MpirunTest, MistakesNameTheOption) {
  const auto error = [](std::optional<int64_t> ranks,
                        std::optional<std::string> hosts) {
    return MessageOf(StartOf(ranks, hosts).status());
  };
  EXPECT_THAT(error({}, ""), HasSubstr("--hosts: found ''"));
  EXPECT_THAT(error({}, "a:2,a:2"), HasSubstr("found 'a' twice"));
  EXPECT_THAT(error({}, "a;touch x:2"), HasSubstr("found 'a;touch x:2'"));
  EXPECT_THAT(error({}, "-o:2"), HasSubstr("found '-o:2'"));
  EXPECT_THAT(error(3, "a:2"), HasSubstr("--hosts: found 2 ranks, expected 3"));
  EXPECT_THAT(error(0, std::nullopt), HasSubstr("--ranks: found 0"));
}

TEST(MpirunTest, AShellReadsTheCommandAsItIs) {
  EXPECT_EQ(ShellText({"train", "my job", "--set=a=b", "it's", "", "$x"}),
            R"(train 'my job' --set=a=b 'it'\''s' '' '$x')");
}

}  // namespace
}  // namespace trireme
