#include "runtime/core/folder_lock.h"

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(FolderLockTest, ASecondOneIsToldWhoHoldsIt) {
  const std::string folder = testing::TempDir() + "/folder_lock/run";
  std::filesystem::remove_all(folder);
  std::optional<FolderLock> first = FolderLock::Acquire(folder).value();
  EXPECT_THAT(MessageOf(FolderLock::Acquire(folder).status()),
              AllOf(HasSubstr("is in use by"),
                    HasSubstr(fmt::format("process {} on ", getpid()))));
  const FolderLock moved = *std::move(first);
  first.reset();
  EXPECT_FALSE(FolderLock::Acquire(folder).ok()) << "moving it gave it up";
}

TEST(FolderLockTest, EndsWithItsHolder) {
  const std::string folder = testing::TempDir() + "/folder_lock/ended";
  EXPECT_TRUE(FolderLock::Acquire(folder).ok());
  EXPECT_TRUE(FolderLock::Acquire(folder).ok());
}

}  // namespace
}  // namespace trireme
