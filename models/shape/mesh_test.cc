#include "models/shape/mesh.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "models/shape/shapes_testing.h"

namespace trireme {
namespace {

TEST(MeshTest, ABoxHasTheNumbersOfABox) {
  const Mesh box = BoxMesh({-1, -2, -3}, {1, 2, 3});
  const MeshTopology topology = TopologyOf(box);
  EXPECT_TRUE(topology.Manifold());
  EXPECT_EQ(topology.EulerCharacteristic(), 2);
  EXPECT_EQ(topology.components, 1);
  EXPECT_DOUBLE_EQ(SurfaceArea(box), 2 * (2 * 4 + 2 * 6 + 4 * 6));
  EXPECT_DOUBLE_EQ(EnclosedVolume(box), 2 * 4 * 6);
}

TEST(MeshTest, ATorusHasAHole) {
  const Mesh torus = TorusMesh(0.6, 0.2, 64, 32);
  EXPECT_TRUE(TopologyOf(torus).Manifold());
  EXPECT_EQ(TopologyOf(torus).EulerCharacteristic(), 0);
  EXPECT_NEAR(EnclosedVolume(torus), 2 * M_PI * M_PI * 0.6 * 0.04, 0.005);
}

TEST(MeshTest, AMissingOrReversedTriangleOpensTheSurface) {
  Mesh box = BoxMesh({-1, -1, -1}, {1, 1, 1});
  std::swap(box.triangles[0][1], box.triangles[0][2]);
  EXPECT_FALSE(TopologyOf(box).Closed());
  box.triangles.erase(box.triangles.begin());
  EXPECT_EQ(TopologyOf(box).open_edges, 3);
}

TEST(MeshTest, WhatIsNoTriangleIsDroppedAndCounted) {
  Mesh mesh = BoxMesh({0, 0, 0}, {1, 1, 1});
  const Mesh box = mesh;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  mesh.vertices.push_back({nan, 0, 0});       // 8
  mesh.vertices.push_back(mesh.vertices[0]);  // 9, vertex 0 again
  mesh.vertices.push_back({0.5, 0, 0});       // 10, on an edge
  mesh.vertices.push_back({9, 9, 9});         // 11, of no triangle
  mesh.triangles[0] = {9, mesh.triangles[0][1], mesh.triangles[0][2]};
  ASSERT_EQ(box.triangles[0][0], 0);
  mesh.triangles.push_back({0, 1, 8});
  mesh.triangles.push_back({0, 1, 12});
  mesh.triangles.push_back({0, -1, 2});
  mesh.triangles.push_back({0, 9, 2});
  mesh.triangles.push_back(
      {box.triangles[1][1], box.triangles[1][2], box.triangles[1][0]});
  const auto repairs = RepairMesh(mesh);
  ASSERT_TRUE(repairs.ok()) << repairs.status();
  EXPECT_EQ(repairs->not_finite, 1);
  EXPECT_EQ(repairs->out_of_range, 2);
  EXPECT_EQ(repairs->degenerate, 1);
  EXPECT_EQ(repairs->duplicate, 1);
  EXPECT_EQ(repairs->welded, 1);
  EXPECT_EQ(repairs->unused, 3);
  EXPECT_TRUE(TopologyOf(mesh).Manifold());
  EXPECT_EQ(mesh.vertices.size(), 8u);
}

TEST(MeshTest, AMeshWithoutASurfaceIsRefused) {
  Mesh points{.vertices = {{0, 0, 0}, {1, 0, 0}}};
  EXPECT_FALSE(RepairMesh(points).ok());
  Mesh line{.vertices = {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}},
            .triangles = {{0, 1, 2}}};
  const auto refused = RepairMesh(line);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("1 without area"),
            std::string::npos);
  Mesh far = BoxMesh({0, 0, 0}, {1, 1, 1});
  for (Vector3f& v : far.vertices) v = v * 1e12f;
  EXPECT_NE(RepairMesh(far).status().message().find("a size of 1e+12"),
            std::string::npos);
}

TEST(MeshTest, KilometresAndMillimetresBecomeTheSameMesh) {
  Mesh small = TorusMesh(0.6, 0.2, 16, 8);
  Mesh large = small;
  for (Vector3f& v : large.vertices) v = v * 65536.0f;
  NormalizeMesh(small);
  NormalizeMesh(large);
  EXPECT_EQ(small, large);
  const Box box = BoundingBox(large);
  EXPECT_FLOAT_EQ(box.high.x, 0.95f);
  EXPECT_FLOAT_EQ(box.low.x, -0.95f);
}

}  // namespace
}  // namespace trireme
