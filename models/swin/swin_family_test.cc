// What the planner takes for blocks of one kind.

#include "models/swin/swin_family.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

std::vector<int32_t> KindsOfBlocks(double drop_path) {
  Swin swin;
  swin.set_preset(Swin::TINY);
  swin.set_drop_path(drop_path);
  const auto config =
      ResolveSwin(swin, /*channels=*/1, /*side=*/28, /*classes=*/10);
  CHECK_OK(config.status());
  std::vector<int32_t> kinds;
  for (const BlockRun& run : MakeSwinFamily(*config)->Shape().block_runs) {
    kinds.insert(kinds.end(), run.count, run.kind);
  }
  return kinds;
}

// The first block is never left out and holds no scaled branches: a prediction
// made of it is too small for those beside it.
TEST(SwinFamilyTest, BlocksOfOneKindHoldTheSame) {
  EXPECT_EQ(KindsOfBlocks(0), (std::vector<int32_t>{0, 0, 1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(KindsOfBlocks(0.2), (std::vector<int32_t>{0, 1, 2, 3, 3, 3, 3, 3}));
}

}  // namespace
}  // namespace trireme
