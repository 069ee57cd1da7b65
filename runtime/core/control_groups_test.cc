#include "runtime/core/control_groups.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// A machine's /proc and group folders below a folder of the test's.
class ControlGroupsTest : public ::testing::Test {
 protected:
  ControlGroupsTest()
      : root_(testing::TempDir() + "/groups_" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
  }
  ~ControlGroupsTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }
  GroupLimits Limits() const { return LimitsOfControlGroups(root_); }

  std::string root_;
};

TEST_F(ControlGroupsTest, TheLeastOfAllGroupsAboveLimits) {
  Write("/proc/self/cgroup", "0::/system.slice/job/step\n");
  Write("/proc/self/mountinfo",
        "22 1 0:20 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 "
        "rw,nsdelegate\n");
  Write("/sys/fs/cgroup/system.slice/job/step/memory.max", "max\n");
  Write("/sys/fs/cgroup/system.slice/job/memory.max", "2147483648\n");
  Write("/sys/fs/cgroup/system.slice/memory.max", "4294967296\n");
  Write("/sys/fs/cgroup/system.slice/job/step/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/system.slice/cpu.max", "max 100000\n");
  EXPECT_EQ(Limits().memory_bytes, int64_t{2} << 30);
  EXPECT_EQ(Limits().processors, 1.5);

  Write("/sys/fs/cgroup/system.slice/job/step/memory.high", "1073741824\n");
  EXPECT_EQ(Limits().memory_bytes, int64_t{1} << 30);
}

// A container sees its own group as the root of all.
TEST_F(ControlGroupsTest, ThePathCountsFromTheMountedGroup) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/proc/self/mountinfo",
        "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  Write("/sys/fs/cgroup/memory.max", "419430400\n");
  EXPECT_EQ(Limits().memory_bytes, 419430400);

  Write("/proc/self/cgroup", "0::/docker/abc/inner\n");
  Write("/proc/self/mountinfo",
        "30 22 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  Write("/sys/fs/cgroup/inner/memory.max", "1000000\n");
  EXPECT_EQ(Limits().memory_bytes, 1000000);

  Write("/proc/self/cgroup", "0::/../elsewhere\n");
  EXPECT_EQ(Limits().memory_bytes, 419430400);
}

TEST_F(ControlGroupsTest, VersionOneHasAHierarchyForEachController) {
  Write("/proc/self/cgroup",
        "9:memory:/slurm/job_7\n4:cpu,cpuacct:/slurm\n0::/none\n");
  Write("/proc/self/mountinfo",
        "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup "
        "rw,cpu,cpuacct\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes",
        "17179869184\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Limits().memory_bytes, int64_t{16} << 30);
  EXPECT_EQ(Limits().processors, std::nullopt);

  Write("/sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_quota_us", "400000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Limits().processors, 4);
}

TEST_F(ControlGroupsTest, WhatCannotBeReadLimitsNothing) {
  EXPECT_EQ(Limits().memory_bytes, std::nullopt);
  Write("/proc/self/cgroup", "nonsense\n0:\n0::\n0::/x\n");
  Write("/proc/self/mountinfo",
        "short\n30 22 0:26 / /sys - cgroup2 cgroup rw\n- - - -\n");
  Write("/sys/memory.max", "many\n");
  Write("/sys/x/memory.max", "-4\n");
  Write("/sys/x/cpu.max", "0 0\n");
  EXPECT_EQ(Limits().memory_bytes, std::nullopt);
  EXPECT_EQ(Limits().processors, std::nullopt);
}

}  // namespace
}  // namespace trireme
