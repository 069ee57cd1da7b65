#include "models/shape/mosaic_sdf.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "models/shape/marching_cubes.h"
#include "models/shape/point_samples.h"
#include "models/shape/shapes_testing.h"

namespace trireme {
namespace {

RandomStream Stream(uint64_t seed) {
  return RandomStream({.seed = seed, .purpose = RandomPurpose::kTest});
}

// A linear function is what trilinear interpolation and any mixture of cubes
// keep: F is that function wherever a cube is.
TEST(MosaicSdfTest, ALinearFunctionIsReproduced) {
  const auto f = [](const Vector3f& p) {
    return 0.3 * p.x - 0.7 * p.y + 0.2 * p.z + 0.1;
  };
  MosaicSdf mosaic{.resolution = 4};
  for (const Vector3f& center : UniformPoints(60, Stream(1), 0.6)) {
    mosaic.centers.push_back(center);
    mosaic.scales.push_back(0.35f);
    for (int i = 0; i < 64; ++i) {
      const auto at = [&](int step) {
        return 0.35f * (2.0f * static_cast<float>(i / step % 4) / 3 - 1);
      };
      mosaic.values.push_back(
          static_cast<float>(f(center + Vector3f{at(1), at(4), at(16)})));
    }
  }
  const MosaicField field(mosaic);
  int covered = 0;
  for (const Vector3f& point : UniformPoints(500, Stream(2))) {
    if (!field.Covers(point)) continue;
    ++covered;
    EXPECT_NEAR(field.At(point), f(point), 1e-5);
  }
  EXPECT_GT(covered, 100);
  const auto again = MosaicFromTokens(MosaicTokens(mosaic), 4);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->centers, mosaic.centers);
  EXPECT_EQ(again->values, mosaic.values);
}

TEST(MosaicSdfTest, TheOrderOfCubesDoesNotMatter) {
  const auto field = ShapeField::Create(TorusMesh(0.6, 0.25, 32, 16));
  ASSERT_TRUE(field.ok());
  const MosaicFit fit =
      FitMosaic(*field, {.grids = 48, .resolution = 4, .steps = 0}, Stream(3));
  std::vector<float> tokens = MosaicTokens(fit.mosaic);
  const int64_t width = 4 + 64;
  std::vector<float> reversed;
  for (int64_t i = fit.mosaic.size() - 1; i >= 0; --i) {
    reversed.insert(reversed.end(), tokens.begin() + i * width,
                    tokens.begin() + (i + 1) * width);
  }
  const auto other = MosaicFromTokens(reversed, 4);
  ASSERT_TRUE(other.ok());
  const MosaicField a(fit.mosaic);
  const MosaicField b(*other);
  for (const Vector3f& point : UniformPoints(300, Stream(4))) {
    EXPECT_NEAR(a.At(point), b.At(point), 1e-6);
  }
}

TEST(MosaicSdfTest, WhatIsNoMosaicIsRefused) {
  EXPECT_FALSE(MosaicFromTokens({}, 2).ok());
  std::vector<float> tokens(12, 1.0f);
  EXPECT_TRUE(MosaicFromTokens(tokens, 2).ok());
  tokens[3] = 0;
  EXPECT_FALSE(MosaicFromTokens(tokens, 2).ok());
  tokens[3] = NAN;
  EXPECT_FALSE(MosaicFromTokens(tokens, 2).ok());
  EXPECT_FALSE(MosaicFromTokens(tokens, 3).ok());
}

TEST(MosaicSdfTest, FarthestPointsAreFarApart) {
  const auto points = UniformPoints(400, Stream(5));
  const std::vector<int32_t> chosen = FarthestPoints(points, 30);
  ASSERT_EQ(chosen.size(), 30u);
  double closest = 1e9;
  for (size_t i = 0; i < chosen.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      closest = std::min<double>(closest,
                                 Length(points[chosen[i]] - points[chosen[j]]));
    }
  }
  // No point is farther from the chosen ones than these are from each other.
  for (const Vector3f& point : points) {
    double least = 1e9;
    for (const int32_t i : chosen) {
      least = std::min<double>(least, Length(points[i] - point));
    }
    EXPECT_LE(least, closest + 1e-6);
  }
  EXPECT_EQ(FarthestPoints(points, 1000).size(), 400u);
}

// A torus and a box, which have both curvature and edges: the target of the
// reference (n 64, k 5: 0.0013).
TEST(MosaicSdfTest, FittingLowersTheErrorAndTheSurfaceComesBack) {
  Mesh mesh = TorusMesh(0.6, 0.15, 40, 16);
  const Mesh box = BoxMesh({-0.25f, -0.3f, -0.25f}, {0.25f, 0.3f, 0.25f});
  const auto first = static_cast<int32_t>(mesh.vertices.size());
  mesh.vertices.insert(mesh.vertices.end(), box.vertices.begin(),
                       box.vertices.end());
  for (const Triangle& t : box.triangles) {
    mesh.triangles.push_back({t[0] + first, t[1] + first, t[2] + first});
  }
  const auto field = ShapeField::Create(mesh);
  ASSERT_TRUE(field.ok());
  const MosaicFit fit = FitMosaic(
      *field, {.grids = 64, .resolution = 5, .points = 128}, Stream(6));
  EXPECT_EQ(fit.coverage, 1);
  EXPECT_LT(fit.last_error, 0.5 * fit.first_error);
  EXPECT_LT(fit.last_error, 0.004);
  const MosaicField mosaic(fit.mosaic);
  const auto back = MarchingCubes(
      [&](std::span<const Vector3f> points, std::span<float> values) {
        mosaic.Distances(points, values);
        return absl::OkStatus();
      },
      {.cells = 32, .refinements = 1});
  ASSERT_TRUE(back.ok());
  double mean = 0;
  for (const Vector3f& v : back->vertices) {
    mean += std::abs(field->At(v).distance);
  }
  EXPECT_LT(mean / static_cast<double>(back->vertices.size()), 0.005);
  EXPECT_EQ(TopologyOf(*back).components, 2);
  EXPECT_NEAR(EnclosedVolume(*back), EnclosedVolume(mesh), 0.03);
}

// Small cubes and large steps: what comes out is still a mosaic.
TEST(MosaicSdfTest, ScalesStayPositive) {
  const auto field = ShapeField::Create(TorusMesh(0.6, 0.2, 24, 12));
  ASSERT_TRUE(field.ok());
  const MosaicFit fit = FitMosaic(*field,
                                  {.grids = 200,
                                   .resolution = 3,
                                   .steps = 12,
                                   .points = 256,
                                   .place_rate = 0.03},
                                  Stream(7));
  const auto mosaic = MosaicFromTokens(MosaicTokens(fit.mosaic), 3);
  EXPECT_TRUE(mosaic.ok()) << mosaic.status();
}

}  // namespace
}  // namespace trireme
