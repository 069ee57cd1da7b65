#include "models/shape/volume_tokens.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/mesh.h"
#include "models/shape/shape_field.h"
#include "models/shape/shapes_testing.h"

namespace trireme {
namespace {

constexpr VolumeShape kShape = {.cells = 16, .patch = 4};

float Ball(const Vector3f& point) {
  return std::sqrt(point.x * point.x + point.y * point.y + point.z * point.z) -
         0.5F;
}

std::vector<float> BallTokens() {
  std::vector<float> distances;
  for (const Vector3f& point : VolumePoints(kShape.cells)) {
    distances.push_back(Ball(point));
  }
  return VolumeTokens(distances, kShape);
}

// A drawn shape is where its zero set is.
TEST(VolumeTokens, DistancesComeBackUpToTheCutOff) {
  const auto field = VolumeField::FromTokens(BallTokens(), kShape);
  ASSERT_TRUE(field.ok()) << field.status();
  const std::vector<Vector3f> points = {
      {0.5F, 0, 0}, {0, 0.45F, 0.1F},   {0.3F, 0.3F, -0.3F}, {0.1F, -0.6F, 0},
      {0, 0, 0},    {0.9F, 0.9F, 0.9F}, {1.5F, 0, 0}};
  std::vector<float> values(points.size());
  field->Distances(points, values);
  for (size_t i = 0; i < points.size(); ++i) {
    const float expected =
        std::clamp(Ball(points[i]) - 1.0F / 16, -0.375F, 0.375F);
    EXPECT_NEAR(values[i], expected, 0.02F) << i;
  }
}

// Half of a chair's legs are thinner than a cell.
TEST(VolumeTokens, AThinPartDoesNotFallThroughTheGrid) {
  // A plate between two layers of centres.
  std::vector<float> distances;
  for (const Vector3f& point : VolumePoints(kShape.cells)) {
    distances.push_back(std::abs(point.z) - 0.01F);
  }
  const auto field =
      VolumeField::FromTokens(VolumeTokens(distances, kShape), kShape);
  ASSERT_TRUE(field.ok()) << field.status();
  std::vector<float> values(2);
  field->Distances(std::vector<Vector3f>{{0.1F, 0.2F, 0}, {0.1F, 0.2F, 0.2F}},
                   values);
  EXPECT_LT(values[0], 0);
  EXPECT_GT(values[1], 0);
}

// A rod that passes between four centres, and one across the grid's diagonals,
// are nearer to none of them than half a cell.
TEST(VolumeTokens, AThinRodDoesNotFallThroughTheGrid) {
  constexpr float kHalf = 0.01F;
  Mesh straight = BoxMesh({-kHalf, -kHalf, -0.8F}, {kHalf, kHalf, 0.8F});
  Mesh diagonal = straight;
  // The axis z to (1, 1, 1).
  const Vector3f axis = Normalized(Vector3f{1, 1, 1});
  const Vector3f side = Normalized(Vector3f{1, -1, 0});
  const Vector3f up = Cross(axis, side);
  for (Vector3f& v : diagonal.vertices) {
    v = side * v.x + up * v.y + axis * v.z;
  }
  for (const auto& [mesh, along] :
       {std::pair(straight, Vector3f{0, 0, 1}), std::pair(diagonal, axis)}) {
    const auto shape = ShapeField::Create(mesh);
    ASSERT_TRUE(shape.ok()) << shape.status();
    const std::vector<Vector3f> centres = VolumePoints(kShape.cells);
    std::vector<float> distances(centres.size()), plain(centres.size());
    shape->ThickenedDistances(centres, LeastThickness(kShape.cells), distances);
    shape->Distances(centres, plain);
    std::vector<Vector3f> points;
    for (int i = -18; i <= 18; ++i) points.push_back(along * (i / 25.0F));
    int lost = 0;
    for (const auto& [values, thickened] :
         {std::pair(distances, true), std::pair(plain, false)}) {
      const auto field =
          VolumeField::FromTokens(VolumeTokens(values, kShape), kShape);
      ASSERT_TRUE(field.ok()) << field.status();
      std::vector<float> at(points.size());
      field->Distances(points, at);
      for (const float value : at) {
        if (thickened) {
          EXPECT_LT(value, 0);
        } else {
          lost += value >= 0;
        }
      }
    }
    EXPECT_GT(lost, 0);
  }
}

// A token that holds another place's cells is learnt in the wrong place.
TEST(VolumeTokens, ATokenIsACubeWhereItLies) {
  std::vector<float> distances(kShape.values(), 1);
  // The first cell of the cube at x = 2, y = 1, z = 3 of four.
  distances[(12 * 16 + 4) * 16 + 8] = -1;
  const std::vector<float> tokens = VolumeTokens(distances, kShape);
  for (int64_t i = 0; i < kShape.values(); ++i) {
    const bool inside = i == ((3 * 4 + 1) * 4 + 2) * kShape.token_channels();
    EXPECT_FLOAT_EQ(tokens[i], inside ? -3.4F : 0.6F) << i;
  }
}

// Seams between cubes would show otherwise.
TEST(VolumeTokens, CubesThatOverlapMeetInTheMiddle) {
  constexpr VolumeShape kOverlapping = {.cells = 16, .patch = 4, .overlap = 1};
  ASSERT_EQ(kOverlapping.token_channels(), 6 * 6 * 6);
  std::vector<float> distances;
  for (const Vector3f& point : VolumePoints(kOverlapping.cells)) {
    distances.push_back(Ball(point));
  }
  std::vector<float> tokens = VolumeTokens(distances, kOverlapping);
  ASSERT_EQ(static_cast<int64_t>(tokens.size()), kOverlapping.token_values());
  const std::vector<Vector3f> points = {
      {0.5F, 0, 0}, {0, 0.45F, 0.1F}, {0.1F, -0.6F, 0}};
  const auto values = [&](std::span<const float> from,
                          const VolumeShape& shape) {
    const auto field = VolumeField::FromTokens(from, shape);
    EXPECT_TRUE(field.ok()) << field.status();
    std::vector<float> found(points.size());
    field->Distances(points, found);
    return found;
  };
  const std::vector<float> apart = values(BallTokens(), kShape);
  const std::vector<float> together = values(tokens, kOverlapping);
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_NEAR(together[i], apart[i], 1e-5F) << i;
  }

  // All of one token says inside, all of others outside: between them lies a
  // slope, a cell to either side.
  std::fill(tokens.begin(), tokens.end(), 0.6F);
  const int64_t middle = (1 * 4 + 1) * 4 + 1;
  std::fill_n(tokens.begin() + middle * kOverlapping.token_channels(),
              kOverlapping.token_channels(), -3.4F);
  const auto field = VolumeField::FromTokens(tokens, kOverlapping);
  ASSERT_TRUE(field.ok()) << field.status();
  std::vector<Vector3f> across;
  for (int x = 5; x < 11; ++x) {
    across.push_back(
        {(2 * static_cast<float>(x) + 1) / 16 - 1, -0.1875F, -0.1875F});
  }
  std::vector<float> slope(across.size());
  field->Distances(across, slope);
  const float cut_off = 0.375F;
  const std::vector<float> expected = {-1, -1, -1.0F / 3, 1.0F / 3, 1, 1};
  for (size_t i = 0; i < slope.size(); ++i) {
    EXPECT_NEAR(slope[i], cut_off * expected[i], 1e-5F) << i;
  }
}

TEST(VolumeTokens, WhatIsNoVolumeIsRefused) {
  std::vector<float> tokens = BallTokens();
  tokens[77] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(VolumeField::FromTokens(tokens, kShape).ok());
  tokens.resize(100);
  EXPECT_FALSE(VolumeField::FromTokens(tokens, kShape).ok());
}

}  // namespace
}  // namespace trireme
