// Drawn chairs keep their legs and lose what hangs in the air.

#include "models/shape/mesh_parts.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "models/shape/marching_cubes.h"
#include "models/shape/shapes_testing.h"

namespace trireme {
namespace {

// A ball of 0.4, one of 0.15 that ends `gap` from it, one of 0.1 that ends as
// far from that, and one far away, as marching cubes make them.
Mesh Balls(float gap) {
  const std::vector<std::pair<Vector3f, float>> balls = {
      {{-0.5F, 0, 0}, 0.4F},
      {{0.05F + gap, 0, 0}, 0.15F},
      {{0.3F + 2 * gap, 0, 0}, 0.1F},
      {{0.8F, 0.8F, 0.8F}, 0.12F}};
  const auto mesh = MarchingCubes([&](std::span<const Vector3f> points,
                                      std::span<float> values) {
    for (size_t i = 0; i < points.size(); ++i) {
      values[i] = 9;
      for (const auto& [centre, radius] : balls) {
        values[i] = std::min(values[i], Length(points[i] - centre) - radius);
      }
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  return *mesh;
}

double BallVolume(double radius) {
  return 4.0 / 3 * M_PI * std::pow(radius, 3);
}

TEST(MeshPartsTest, WhatTouchesTheLargestPartIsKept) {
  const Mesh balls = Balls(0.03F);
  const double first = BallVolume(0.4), second = BallVolume(0.15),
               third = BallVolume(0.1), far = BallVolume(0.12);
  EXPECT_NEAR(EnclosedVolume(KeepParts(balls, KeptParts::kAll)),
              first + second + third + far, 2e-3);
  EXPECT_NEAR(EnclosedVolume(KeepParts(balls, KeptParts::kTouching)),
              first + second + third, 2e-3);
  EXPECT_NEAR(EnclosedVolume(KeepParts(balls, KeptParts::kLargest)), first,
              2e-3);
  const Mesh kept = KeepParts(balls, KeptParts::kTouching);
  EXPECT_TRUE(TopologyOf(kept).Manifold());
  EXPECT_LT(kept.vertices.size(), balls.vertices.size());
}

TEST(MeshPartsTest, WhatHangsInTheAirIsNot) {
  EXPECT_NEAR(EnclosedVolume(KeepParts(Balls(0.1F), KeptParts::kTouching)),
              BallVolume(0.4), 2e-3);
  EXPECT_TRUE(KeepParts(Mesh(), KeptParts::kTouching).triangles.empty());
}

}  // namespace
}  // namespace trireme
