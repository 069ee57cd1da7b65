// A host that has the data elsewhere reads the job's paths there, and no
// others.

#include "trainer/config/local_path.h"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

std::string Where(const std::string& moved, const std::string& path) {
  return PathWhere(ParseMovedFolders("test", moved).value(), path);
}

TEST(LocalPathTest, AFolderAndWhatLiesInItAreElsewhere) {
  EXPECT_EQ(Where("/data:/scratch/d", "/data"), "/scratch/d");
  EXPECT_EQ(Where("/data/:/scratch/d/", "/data/a/b.tar"), "/scratch/d/a/b.tar");
  EXPECT_EQ(Where("/data:/scratch/d", "/data/./a/"), "/scratch/d/a/");
  // A name that only begins alike, and what leads out of the folder.
  EXPECT_EQ(Where("/data:/scratch/d", "/data2/a"), "/data2/a");
  EXPECT_EQ(Where("/data:/scratch/d", "/data/../etc"), "/data/../etc");
  EXPECT_EQ(Where("/data:/scratch/d", ""), "");
  // Nothing is looked for twice.
  EXPECT_EQ(Where("/data:/data/here", "/data/a"), "/data/here/a");
}

TEST(LocalPathTest, TheLongestFolderCounts) {
  const std::string moved = "/data:/scratch,/data/large:/tape,/runs:/mnt/runs";
  EXPECT_EQ(Where(moved, "/data/large/a"), "/tape/a");
  EXPECT_EQ(Where(moved, "/data/larger/a"), "/scratch/larger/a");
  EXPECT_EQ(Where(moved, "/runs/one"), "/mnt/runs/one");
}

TEST(LocalPathTest, ARelativePathIsThatOfTheCurrentFolder) {
  const std::string here = std::filesystem::current_path();
  EXPECT_EQ(Where(here + ":/elsewhere", "data/a"), "/elsewhere/data/a");
  EXPECT_EQ(Where("/nowhere:/elsewhere", "data/a"), "data/a");
}

TEST(LocalPathTest, WhatIsNoMappingIsNamed) {
  for (const std::string text : {"/data", "data:/scratch", "/data:scratch",
                                 "/:/scratch", "/a:/b:/c", "/a:/b,", ""}) {
    const absl::Status status = ParseMovedFolders("hosts:3", text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(MessageOf(status), HasSubstr("hosts:3: found '")) << text;
  }
  EXPECT_THAT(MessageOf(ParseMovedFolders("x", "/a:/b,/a/:/c").status()),
              HasSubstr("found '/a' twice"));
}

TEST(LocalPathTest, TheEnvironmentSaysWhatHolds) {
  setenv(kPathsVariable, "/data:/scratch", /*overwrite=*/1);
  EXPECT_EQ(LocalPath("/data/a").value(), "/scratch/a");
  setenv(kPathsVariable, "/data", /*overwrite=*/1);
  EXPECT_THAT(MessageOf(LocalPath("/data/a").status()),
              HasSubstr("TRIREME_PATHS: found '/data'"));
  unsetenv(kPathsVariable);
  EXPECT_EQ(LocalPath("/data/a").value(), "/data/a");
}

}  // namespace
}  // namespace trireme
