#include "models/shape/voxel_tokens.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/voxel_order.h"

namespace trireme {
namespace {

using Distance = std::function<float(const Vector3f&)>;

float Ball(const Vector3f& point) {
  return std::sqrt(point.x * point.x + point.y * point.y + point.z * point.z) -
         0.5F;
}

// A hollow ball: what lies in its middle is outside, and reaches no border.
float Shell(const Vector3f& point) { return std::abs(Ball(point)) - 0.15F; }

std::vector<float> DistancesOf(const Distance& distance, int cells) {
  std::vector<float> distances;
  for (const Vector3f& point : VolumePoints(cells)) {
    distances.push_back(distance(point));
  }
  return distances;
}

std::vector<float> ValuesAt(const VolumeField& field,
                            const std::vector<Vector3f>& points) {
  std::vector<float> values(points.size());
  field.Distances(points, values);
  return values;
}

// A drawn shape's surface is that of the whole grid of distances, and all other
// places lie on their side of it.
TEST(VoxelTokens, TheSurfaceComesBack) {
  for (const Distance& shape_distance : {Distance(Ball), Distance(Shell)}) {
    for (const int patch : {1, 2, 4}) {
      const VoxelShape shape = {.cells = 32, .patch = patch};
      const std::vector<float> distances = DistancesOf(shape_distance, 32);
      const VoxelSet set = VoxelTokens(distances, shape);
      ASSERT_GT(set.size(), 0);
      EXPECT_LT(set.size() * shape.token_channels(), shape.values());
      const auto field = VoxelField(set.voxels, set.features, shape);
      ASSERT_TRUE(field.ok()) << field.status();
      // At the cells' centres and in the middle between eight of them.
      std::vector<Vector3f> points = VolumePoints(32);
      const size_t centres = points.size();
      for (size_t i = 0; i < centres; ++i) {
        const Vector3f& p = points[i];
        points.push_back({p.x + 1.0F / 32, p.y + 1.0F / 32, p.z + 1.0F / 32});
      }
      const std::vector<float> values = ValuesAt(*field, points);
      for (size_t i = 0; i < points.size(); ++i) {
        const float expected = shape_distance(points[i]) - 1.0F / 32;
        if (std::abs(expected) > 0.01F) {
          EXPECT_EQ(values[i] < 0, expected < 0)
              << points[i].x << " " << points[i].y << " " << points[i].z;
        }
        if (i < centres && std::abs(expected) < 0.03F) {
          EXPECT_NEAR(values[i], expected, 1e-5F);
        }
      }
    }
  }
}

// Half of a cell wide, between two layers of centres.
TEST(VoxelTokens, AThinPartDoesNotFallThroughTheGrid) {
  const VoxelShape shape = {.cells = 16, .patch = 2};
  const VoxelSet set = VoxelTokens(
      DistancesOf([](const Vector3f& p) { return std::abs(p.z) - 0.01F; }, 16),
      shape);
  // The cubes on both sides of z = 0.
  EXPECT_EQ(set.size(), 2 * 8 * 8);
  const auto field = VoxelField(set.voxels, set.features, shape);
  ASSERT_TRUE(field.ok()) << field.status();
  EXPECT_LT(ValuesAt(*field, {{0.1F, 0.2F, 0}})[0], 0);
  EXPECT_GT(ValuesAt(*field, {{0.1F, 0.2F, 0.3F}})[0], 0);
}

// What fills the grid to its border has a surface there.
TEST(VoxelTokens, WhatReachesTheBorderIsClosedThere) {
  const VoxelShape shape = {.cells = 8, .patch = 2};
  const VoxelSet set = VoxelTokens(std::vector<float>(512, -1), shape);
  EXPECT_EQ(set.size(), 4 * 4 * 4 - 2 * 2 * 2);
  const auto field = VoxelField(set.voxels, set.features, shape);
  ASSERT_TRUE(field.ok()) << field.status();
  EXPECT_LT(ValuesAt(*field, {{0.05F, 0, 0}})[0], 0);
  EXPECT_EQ(VoxelTokens(std::vector<float>(512, 1), shape).size(), 0);
}

// Attention finds its blocks by the order: blocks of 8³ first, x fastest.
TEST(VoxelTokens, VoxelsAreSortedByBlocks) {
  EXPECT_EQ(VoxelRank(0, 0, 0, 20), 0);
  EXPECT_EQ(VoxelRank(7, 0, 0, 20), 7);
  EXPECT_EQ(VoxelRank(0, 1, 0, 20), 8);
  EXPECT_EQ(VoxelRank(0, 0, 1, 20), 64);
  EXPECT_EQ(VoxelRank(8, 0, 0, 20), 512);
  EXPECT_EQ(VoxelRank(0, 8, 0, 20), 3 * 512);
  EXPECT_EQ(VoxelRank(1, 2, 8 + 3, 20), 9 * 512 + 3 * 64 + 2 * 8 + 1);
  const VoxelShape shape = {.cells = 32, .patch = 1};
  const VoxelSet set = VoxelTokens(DistancesOf(Ball, 32), shape);
  int64_t last = -1;
  for (int64_t i = 0; i < set.size(); ++i) {
    const int64_t rank = VoxelRank(set.voxels[3 * i], set.voxels[3 * i + 1],
                                   set.voxels[3 * i + 2], 32);
    EXPECT_GT(rank, last);
    last = rank;
  }
}

// A token that holds another place's cells is learnt in the wrong place.
TEST(VoxelTokens, ATokenIsACubeWhereItLies) {
  const VoxelShape shape = {.cells = 16, .patch = 4};
  std::vector<float> distances(shape.values(), 1);
  // In the middle of the cube at x = 2, y = 1, z = 3.
  distances[(13 * 16 + 5) * 16 + 10] = -1;
  const VoxelSet set = VoxelTokens(distances, shape);
  EXPECT_EQ(set.voxels, (std::vector<int32_t>{2, 1, 3}));
  for (int64_t i = 0; i < shape.token_channels(); ++i) {
    EXPECT_FLOAT_EQ(set.features[i], i == (1 * 4 + 1) * 4 + 2 ? -2 : 2) << i;
  }
}

// What a model makes coarser has room for every sample.
TEST(VoxelTokens, CoarserCubesAreBounded) {
  // In four cubes of twice the side, and in two of four times.
  const VoxelSet set = {.voxels = {0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 2, 0, 4, 0, 0},
                        .features = {}};
  const auto fits = [&](int64_t tokens, std::vector<int64_t> coarser) {
    return Fits(set, {.cells = 8,
                      .most_tokens = tokens,
                      .most_coarser = std::move(coarser)});
  };
  EXPECT_TRUE(fits(5, {}));
  EXPECT_FALSE(fits(4, {}));
  EXPECT_TRUE(fits(5, {4, 2}));
  EXPECT_FALSE(fits(5, {3, 2}));
  EXPECT_FALSE(fits(5, {4, 1}));
}

TEST(VoxelTokens, WhatIsNoShapeIsRefused) {
  const VoxelShape shape = {.cells = 8, .patch = 2};
  std::vector<float> features(16, 0.5F);
  EXPECT_TRUE(
      VoxelField(std::vector<int32_t>{0, 0, 0, 1, 2, 3}, features, shape).ok());
  EXPECT_FALSE(
      VoxelField(std::vector<int32_t>{0, 0, 0, 1, 2, 4}, features, shape).ok());
  EXPECT_FALSE(
      VoxelField(std::vector<int32_t>{-1, 0, 0}, features, shape).ok());
  EXPECT_FALSE(
      VoxelField(std::vector<int32_t>{1, 2, 3, 1, 2, 3}, features, shape).ok());
  EXPECT_FALSE(VoxelField(std::vector<int32_t>(9, 0), features, shape).ok());
  features[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(VoxelField(std::vector<int32_t>{0, 0, 0}, features, shape).ok());
}

// What is drawn of latents has all cells of each; a model that never saw those
// beside the surface would make one of each.
TEST(VoxelTokens, WholeCubesAddWhatLiesBesideTheSurface) {
  const std::vector<float> distances = DistancesOf(Ball, 32);
  const VoxelSet near = VoxelTokens(distances, {.cells = 32});
  const VoxelShape whole = {.cells = 32, .whole = 4};
  const VoxelSet set = VoxelTokens(distances, whole);
  EXPECT_TRUE(std::all_of(near.kinds.begin(), near.kinds.end(),
                          [](int32_t kind) { return kind >= kVoxelNear; }));
  std::map<std::array<int32_t, 3>, int64_t> cubes;
  int64_t found = 0, beside = 0;
  for (int64_t i = 0; i < set.size(); ++i) {
    const int32_t* voxel = &set.voxels[3 * i];
    ++cubes[{voxel[0] / 4, voxel[1] / 4, voxel[2] / 4}];
    if (set.kinds[i] == kVoxelBeside) {
      ++beside;
      continue;
    }
    // In the same order.
    ASSERT_LT(found, near.size());
    EXPECT_TRUE(std::equal(voxel, voxel + 3, &near.voxels[3 * found]));
    EXPECT_EQ(set.kinds[i], near.kinds[found]);
    EXPECT_EQ(set.features[i], near.features[found]);
    ++found;
  }
  EXPECT_EQ(found, near.size());
  EXPECT_GT(beside, 0);
  for (const auto& [cube, cells] : cubes) EXPECT_EQ(cells, 64);
  // The surface is the same.
  const auto field = VoxelField(set.voxels, set.features, whole);
  const auto of_near = VoxelField(near.voxels, near.features, {.cells = 32});
  ASSERT_TRUE(field.ok() && of_near.ok()) << field.status();
  const std::vector<Vector3f> points = VolumePoints(24);
  const std::vector<float> got = ValuesAt(*field, points),
                           expected = ValuesAt(*of_near, points);
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_EQ(got[i] < 0, expected[i] < 0);
  }
}

}  // namespace
}  // namespace trireme
