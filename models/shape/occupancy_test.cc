// Where a second model draws is where shapes are.

#include "models/shape/occupancy.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/voxel_tokens.h"

namespace trireme {
namespace {

std::vector<float> Ball() {
  std::vector<float> distances;
  for (const Vector3f& p : VolumePoints(32)) {
    distances.push_back(std::hypot(p.x, p.y - 0.1F, p.z) - 0.6F);
  }
  return distances;
}

TEST(Occupancy, TokensHaveTheCubesOfVoxels) {
  const std::vector<float> distances = Ball();
  const VoxelSet cubes = VoxelTokens(distances, {.cells = 32, .patch = 4});
  for (const int overlap : {0, 1}) {
    const VolumeShape shape = {
        .cells = 8, .patch = 2, .overlap = overlap, .occupied_of = 32};
    const std::vector<float> tokens =
        VolumeTokens(Occupancy(distances, shape), shape);
    const auto cells = OccupiedCellsOf(tokens, shape, /*most=*/512);
    ASSERT_TRUE(cells.ok()) << cells.status();
    EXPECT_EQ(cells->voxels, cubes.voxels);
    EXPECT_EQ(cells->left_out, 0);
  }
}

// A second model has room for so many, and none for no cell at all.
TEST(Occupancy, TheSurestCellsAreKept) {
  const VolumeShape shape = {.cells = 3, .patch = 1, .occupied_of = 6};
  // Further outside than any.
  std::vector<float> tokens(27, 0.6F);
  tokens[13] = 0.1F;
  auto cells = OccupiedCellsOf(tokens, shape, 4);
  ASSERT_TRUE(cells.ok()) << cells.status();
  EXPECT_EQ(cells->voxels, (std::vector<int32_t>{1, 1, 1}));
  tokens[13] = -3;
  tokens[26] = -2;
  tokens[2] = -2.5F;
  cells = OccupiedCellsOf(tokens, shape, 2);
  ASSERT_TRUE(cells.ok()) << cells.status();
  EXPECT_EQ(cells->voxels, (std::vector<int32_t>{2, 0, 0, 1, 1, 1}));
  EXPECT_EQ(cells->left_out, 1);
  tokens[5] = std::nanf("");
  EXPECT_FALSE(OccupiedCellsOf(tokens, shape, 2).ok());
}

}  // namespace
}  // namespace trireme
