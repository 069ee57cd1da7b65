#include "runtime/device/locked_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A driver that heeds the limit, or does not, and what it was asked for.
struct Driver {
  int64_t limit = 0;
  std::vector<int64_t> asked;

  absl::Status Lock(std::span<std::byte> pages) {
    asked.push_back(static_cast<int64_t>(pages.size()));
    // What it locks is there.
    pages.front() = pages.back() = std::byte{1};
    if (asked.back() > limit) return ResourceExhausted("no more");
    return absl::OkStatus();
  }
  absl::Status Check(int64_t bytes, std::optional<int64_t> of_process) {
    return CheckLockable(bytes, of_process, [this](std::span<std::byte> pages) {
      return Lock(pages);
    });
  }
};

const int64_t kPage = sysconf(_SC_PAGESIZE);

TEST(LockedMemory, WhatTheLimitAllowsIsNotTried) {
  Driver driver;
  EXPECT_TRUE(driver.Check(10 * kPage, std::nullopt).ok());
  EXPECT_TRUE(driver.Check(10 * kPage, 10 * kPage).ok());
  EXPECT_TRUE(driver.asked.empty());
}

TEST(LockedMemory, ADriverThatHeedsTheLimitIsFoundOutByAPage) {
  Driver driver{.limit = 3 * kPage};
  const absl::Status status = driver.Check(int64_t{1} << 50, 3 * kPage);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(MessageOf(status), "no more");
  EXPECT_EQ(driver.asked, std::vector<int64_t>{4 * kPage});
}

TEST(LockedMemory, ADriverThatDoesNotHeedTheLimitMayLockAll) {
  Driver driver{.limit = int64_t{1} << 50};
  EXPECT_TRUE(driver.Check(int64_t{1} << 40, 3 * kPage).ok());
  // A limit that is no number of pages.
  EXPECT_TRUE(driver.Check(int64_t{1} << 40, 3 * kPage + 7).ok());
  EXPECT_EQ(driver.asked, (std::vector<int64_t>{4 * kPage, 4 * kPage}));
}

TEST(LockedMemory, TheLimitIsTheProcess) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
  rlimit lower = before;
  lower.rlim_cur = static_cast<rlim_t>(kPage);
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &lower), 0);
  EXPECT_EQ(LockedMemoryLimit(), kPage);
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

}  // namespace
}  // namespace trireme
