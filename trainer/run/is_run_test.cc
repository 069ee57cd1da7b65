#include "trainer/run/is_run.h"

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

class IsRunTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ + "/runs/clothes/checkpoints");
    ASSERT_TRUE(
        WriteFileAtomically(root_ + "/runs/clothes/job.textproto", "").ok());
  }

  std::string Error(const std::string& path) {
    return MessageOf(CheckIsRun(root_ + path));
  }

  const std::string root_ = testing::TempDir() + "/is_run_test";
};

TEST_F(IsRunTest, AFolderOfARunThatBeganIsOne) {
  EXPECT_TRUE(CheckIsRun(root_ + "/runs/clothes").ok());
  EXPECT_TRUE(CheckIsRun(root_ + "/runs/clothes/").ok());
}

TEST_F(IsRunTest, WhatIsNoneIsCalledWhatItIs) {
  EXPECT_THAT(Error("/nowhere"), HasSubstr("no such folder"));
  EXPECT_THAT(Error("/runs/clothes/job.textproto"), HasSubstr("found a file"));
  std::filesystem::create_directories(root_ + "/empty");
  EXPECT_THAT(Error("/empty"), HasSubstr("neither checkpoints"));
  // One's own, as with `--out .`.
  ASSERT_TRUE(WriteFileAtomically(root_ + "/empty/job.textproto", "").ok());
  EXPECT_THAT(Error("/empty"), HasSubstr("neither checkpoints"));
}

TEST_F(IsRunTest, AFolderOfRunsNamesThem) {
  EXPECT_THAT(Error("/runs"),
              HasSubstr("expected one of " + root_ + "/runs/clothes"));
}

}  // namespace
}  // namespace trireme
