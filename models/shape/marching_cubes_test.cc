#include "models/shape/marching_cubes.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "gtest/gtest.h"
#include "models/shape/cube_triangles.h"
#include "models/shape/shape_field.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

PointFunction Of(const std::function<double(const Vector3f&)>& f) {
  return [f](std::span<const Vector3f> points, std::span<float> values) {
    std::transform(points.begin(), points.end(), values.begin(),
                   [&](const Vector3f& p) { return static_cast<float>(f(p)); });
    return absl::OkStatus();
  };
}

double Sphere(const Vector3f& p) { return Length(p) - 0.7; }

double Torus(const Vector3f& p) {
  return std::hypot(std::hypot(p.x, p.z) - 0.6, p.y) - 0.2;
}

TEST(CubeTrianglesTest, EachCrossedEdgeHasOneVertex) {
  const CubeTriangles table = MakeCubeTriangles();
  for (int negative = 0; negative < 256; ++negative) {
    std::set<int> used;
    for (const auto& triangle : table[negative]) {
      used.insert(triangle.begin(), triangle.end());
    }
    std::set<int> crossed;
    for (int e = 0; e < 12; ++e) {
      const auto [from, axis] = CubeEdges()[e];
      const int to = from | 1 << axis;
      if ((negative >> from & 1) != (negative >> to & 1)) crossed.insert(e);
    }
    EXPECT_EQ(used, crossed) << negative;
  }
}

TEST(MarchingCubesTest, ASphereHasItsAreaVolumeAndTopology) {
  const auto mesh = MarchingCubes(Of(Sphere), {.cells = 16, .refinements = 2});
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  EXPECT_TRUE(TopologyOf(*mesh).Manifold());
  EXPECT_EQ(TopologyOf(*mesh).EulerCharacteristic(), 2);
  EXPECT_EQ(TopologyOf(*mesh).components, 1);
  const double volume = 4.0 / 3 * M_PI * 0.343;
  EXPECT_NEAR(EnclosedVolume(*mesh), volume, 0.002 * volume);
  EXPECT_NEAR(SurfaceArea(*mesh), 4 * M_PI * 0.49, 0.002 * 4 * M_PI * 0.49);
  for (const Vector3f& v : mesh->vertices) EXPECT_NEAR(Sphere(v), 0, 1e-3);
}

TEST(MarchingCubesTest, ATorusHasItsAreaVolumeAndTopology) {
  const auto mesh = MarchingCubes(Of(Torus), {.cells = 16, .refinements = 2});
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  EXPECT_TRUE(TopologyOf(*mesh).Manifold());
  EXPECT_EQ(TopologyOf(*mesh).EulerCharacteristic(), 0);
  const double volume = 2 * M_PI * M_PI * 0.6 * 0.04;
  EXPECT_NEAR(EnclosedVolume(*mesh), volume, 0.01 * volume);
  const double area = 4 * M_PI * M_PI * 0.6 * 0.2;
  EXPECT_NEAR(SurfaceArea(*mesh), area, 0.01 * area);
}

TEST(MarchingCubesTest, RefiningFindsWhatTheFineGridWouldHave) {
  int64_t asked = 0;
  const PointFunction counting = [&](std::span<const Vector3f> points,
                                     std::span<float> values) {
    asked += static_cast<int64_t>(points.size());
    return Of(Torus)(points, values);
  };
  const auto refined =
      MarchingCubes(counting, {.cells = 16, .refinements = 2, .batch = 100});
  const int64_t asked_refining = std::exchange(asked, 0);
  const auto whole = MarchingCubes(counting, {.cells = 64, .refinements = 0});
  ASSERT_TRUE(refined.ok() && whole.ok());
  EXPECT_EQ(*refined, *whole);
  EXPECT_LT(asked_refining, asked / 2);
}

// Every configuration of corners, side by side in every way: random values.
TEST(MarchingCubesTest, AnyFunctionGivesAClosedManifold) {
  const RandomStream random({.seed = 5, .purpose = RandomPurpose::kTest});
  const auto noise = [&](const Vector3f& p) {
    const auto at = [](float x) { return std::lround((x + 1) * 8); };
    const uint64_t index = at(p.x) + 100 * (at(p.y) + 100 * at(p.z));
    // Some corners are exactly 0.
    return std::round(random.Normal(index) * 2);
  };
  const auto mesh = MarchingCubes(Of(noise), {.cells = 16, .refinements = 0});
  ASSERT_TRUE(mesh.ok());
  EXPECT_GT(mesh->triangles.size(), 5000u);
  EXPECT_TRUE(TopologyOf(*mesh).Manifold())
      << TopologyOf(*mesh).open_edges << " open, "
      << TopologyOf(*mesh).crowded_edges << " crowded";
}

// Not a distance: the coarse grid sees one end of a thin rod, from which its
// other end is found.
TEST(MarchingCubesTest, TheSurfaceIsFollowedBeyondTheBand) {
  const auto rod = [](const Vector3f& p) {
    const double r = p.x < -0.6 ? 0.3 : 0.06;
    return 1e-3 * (std::max(std::hypot(p.y - 0.06, p.z - 0.06) - r,
                            std::abs(p.x) - 0.9));
  };
  const auto mesh =
      MarchingCubes(Of(rod), {.cells = 8, .refinements = 3, .band = 0});
  ASSERT_TRUE(mesh.ok());
  EXPECT_TRUE(TopologyOf(*mesh).Manifold());
  EXPECT_EQ(TopologyOf(*mesh).EulerCharacteristic(), 2);
  EXPECT_NEAR(BoundingBox(*mesh).high.x, 0.9, 0.03);
}

TEST(MarchingCubesTest, WhatTheCubeCutsIsClosedThere) {
  const auto everywhere = MarchingCubes(
      Of([](const Vector3f&) { return -1.0; }), {.cells = 8, .refinements = 1});
  ASSERT_TRUE(everywhere.ok());
  EXPECT_TRUE(TopologyOf(*everywhere).Manifold());
  // The cube's edges are bevelled by a cell.
  EXPECT_NEAR(EnclosedVolume(*everywhere), 8, 0.3);
  const auto nowhere = MarchingCubes(Of([](const Vector3f&) { return 1.0; }),
                                     {.cells = 8, .refinements = 1});
  ASSERT_TRUE(nowhere.ok());
  EXPECT_TRUE(nowhere->triangles.empty());
}

TEST(MarchingCubesTest, WhatIsNotFiniteAndTooManyPointsAreErrors) {
  for (const double value : {double{NAN}, double{INFINITY}}) {
    const auto broken = MarchingCubes(
        Of([value](const Vector3f& p) { return p.x > 0 ? value : -1.0; }));
    EXPECT_EQ(broken.status().code(), absl::StatusCode::kDataLoss) << value;
  }
  EXPECT_EQ(MarchingCubes(Of(Sphere), {.max_points = 1000}).status().code(),
            absl::StatusCode::kResourceExhausted);
  const auto failing =
      MarchingCubes([](std::span<const Vector3f>, std::span<float>) {
        return Internal("no memory");
      });
  EXPECT_EQ(failing.status(), Internal("no memory"));
}

TEST(MarchingCubesTest, AMeshGoesThroughItsFieldAndBack) {
  const Mesh torus = TorusMesh(0.6, 0.2, 96, 48);
  const auto field = ShapeField::Create(torus);
  ASSERT_TRUE(field.ok());
  const auto back = MarchingCubes(
      [&](std::span<const Vector3f> points, std::span<float> values) {
        field->Distances(points, values);
        return absl::OkStatus();
      },
      {.cells = 32, .refinements = 1});
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(TopologyOf(*back).EulerCharacteristic(), 0);
  const TriangleScene scene(torus);
  double mean = 0;
  for (const Vector3f& v : back->vertices) mean += scene.Closest(v).distance;
  EXPECT_LT(mean / static_cast<double>(back->vertices.size()), 5e-4);
  EXPECT_NEAR(EnclosedVolume(*back), EnclosedVolume(torus), 0.003);
}

}  // namespace
}  // namespace trireme
