#include "runtime/core/file.h"

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTest : public ::testing::Test {
 protected:
  FileTest() : folder_(testing::TempDir() + "/file_test") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }

  int64_t CountFiles() const {
    return std::distance(fs::directory_iterator(folder_), {});
  }

  std::string folder_;
};

TEST_F(FileTest, WhatIsWrittenIsRead) {
  const std::string content("a\0b\n", 4);
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/x", "old").ok());
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/x", content).ok());
  EXPECT_EQ(ReadFile(folder_ + "/x", 4).value(), content);
  EXPECT_EQ(CountFiles(), 1);
}

TEST_F(FileTest, AnAbandonedFileLeavesTheOldOneAndNoOther) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/x", "old").ok());
  {
    auto file = AtomicFile::Create(folder_ + "/x");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Append("half of it").ok());
  }
  EXPECT_EQ(ReadFile(folder_ + "/x", 100).value(), "old");
  EXPECT_EQ(CountFiles(), 1);
}

TEST_F(FileTest, ErrorsNameThePath) {
  const auto missing = ReadFile(folder_ + "/missing", 10);
  EXPECT_TRUE(absl::IsNotFound(missing.status()));
  EXPECT_THAT(MessageOf(missing.status()), HasSubstr("/missing"));

  ASSERT_TRUE(WriteFileAtomically(folder_ + "/x", "12345").ok());
  EXPECT_THAT(MessageOf(ReadFile(folder_ + "/x", 4).status()),
              HasSubstr("5 bytes, expected at most 4"));
  EXPECT_THAT(MessageOf(ReadFile(folder_, 1 << 20).status()),
              HasSubstr("not a regular file"));
  EXPECT_TRUE(
      absl::IsNotFound(WriteFileAtomically(folder_ + "/none/x", "content")));
}

TEST_F(FileTest, FoldersAreMadeAndListed) {
  ASSERT_TRUE(MakeDirectories(folder_ + "/b/c").ok());
  ASSERT_TRUE(MakeDirectories(folder_ + "/b/c").ok()) << "it exists already";
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/a", "").ok());
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("a", "b"));
  EXPECT_TRUE(SyncDirectory(folder_).ok());

  EXPECT_TRUE(absl::IsNotFound(ListDirectory(folder_ + "/none").status()));
  EXPECT_THAT(MessageOf(ListDirectory(folder_ + "/a").status()),
              HasSubstr("/a: cannot list"));
  EXPECT_THAT(MessageOf(MakeDirectories(folder_ + "/a/d")),
              HasSubstr("/a/d: cannot create"));
  EXPECT_THAT(MessageOf(SyncDirectory(folder_ + "/a")), HasSubstr("/a"));
}

}  // namespace
}  // namespace trireme
