#include "runtime/core/shared_folder.h"

#include <filesystem>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class SharedFolderTest : public testing::Test {
 protected:
  std::string folder_ = fmt::format(
      "{}/{}", testing::TempDir(),
      testing::UnitTest::GetInstance()->current_test_info()->name());
  std::string path_ = folder_ + "/piece";

  int writes_ = 0;
  absl::Status Write() {
    ++writes_;
    return WriteFileAtomically(path_, "whole");
  }
};

TEST_F(SharedFolderTest, KeepsWhatTheFirstOneWrote) {
  ASSERT_TRUE(WriteUnlessThere(folder_, path_, "first").ok());
  ASSERT_TRUE(WriteUnlessThere(folder_, path_, "second").ok());
  EXPECT_EQ(*ReadFile(path_, 100), "first");
}

TEST_F(SharedFolderTest, WritesAPieceOnce) {
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(
        WritePieceOnce(folder_, 3, path_, [&] { return Write(); }).ok());
  }
  EXPECT_EQ(writes_, 1);
}

TEST_F(SharedFolderTest, LeavesAPieceToTheProcessThatHasIt) {
  const auto other = FolderLock::Acquire(folder_ + "/.claims/000003");
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(WritePieceOnce(folder_, 3, path_, [&] { return Write(); }).ok());
  EXPECT_EQ(writes_, 0);
}

TEST_F(SharedFolderTest, TriesAPieceAgainThatCouldNotBeWritten) {
  EXPECT_FALSE(WritePieceOnce(folder_, 3, path_, [] {
                 return DataLoss("no space");
               }).ok());
  ASSERT_TRUE(WritePieceOnce(folder_, 3, path_, [&] { return Write(); }).ok());
  EXPECT_EQ(writes_, 1);
}

}  // namespace
}  // namespace trireme
