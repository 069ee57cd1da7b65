// A folder's rates are measured with as many bytes as were asked for, which are
// gone afterwards, and failures are told after all have begun alike.

#include "trainer/profile/drive_profile.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(DriveProfileTest, MeasuresAFolderAndLeavesNothing) {
  const std::string folder = testing::TempDir() + "/drive_profile";
  int begun = 0;
  const auto rates = MeasureDrive(folder, 64 << 20, [&] { ++begun; });
  ASSERT_TRUE(rates.ok()) << rates.status();
  EXPECT_EQ(begun, 3);
  EXPECT_GT(rates->write_bytes_per_s, 0);
  EXPECT_GT(rates->read_bytes_per_s, 0);
  EXPECT_GT(rates->both_bytes_per_s, 0);
  EXPECT_GT(rates->free_bytes, 0);
  EXPECT_FALSE(rates->how.empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(DriveProfileTest, AFolderThatCannotBeIsRefusedAfterAllHaveBegun) {
  int begun = 0;
  const auto rates =
      MeasureDrive("/dev/null/folder", 1 << 20, [&] { ++begun; });
  EXPECT_FALSE(rates.ok());
  EXPECT_EQ(begun, 3);
}

}  // namespace
}  // namespace trireme
