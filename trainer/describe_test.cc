// What a dry run says of a drive, and whether it fails, does not depend on how
// its folder is written.

#include "trainer/describe.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(DescribeDriveTest, AFolderThatIsNotYetThereIsOnTheDriveOfThoseAboveIt) {
  const std::vector<RankModel::Needs> little = {
      {.drive_bytes = 1 << 20, .drive_step_bytes = 2 << 20}};
  const std::vector<RankModel::Needs> all = {
      {.drive_bytes = int64_t{1} << 60, .drive_step_bytes = 1}};
  for (const std::string& folder :
       {testing::TempDir() + "/not/there", std::string("not_there"),
        std::string("not/there")}) {
    Plan plan;
    plan.mutable_offload()->mutable_nvme()->set_folder(folder);
    EXPECT_THAT(DescribeDrive(little, plan),
                HasSubstr("are free there on this machine"))
        << folder;
    EXPECT_TRUE(CheckDrive(little, plan).ok()) << folder;
    EXPECT_TRUE(absl::IsResourceExhausted(CheckDrive(all, plan))) << folder;
  }
}

}  // namespace
}  // namespace trireme
