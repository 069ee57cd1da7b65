// Where an autoencoder's loss counts a surface's edges.

#include "models/shape/sharp_edges.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/volume_tokens.h"

namespace trireme {
namespace {

constexpr int kCells = 32;
constexpr float kCell = 2.0F / kCells;

using Distance = std::function<float(const Vector3f&)>;

float Box(const Vector3f& p, float x, float y, float z) {
  const float dx = std::abs(p.x) - x, dy = std::abs(p.y) - y,
              dz = std::abs(p.z) - z;
  const auto positive = [](float a) { return std::max(a, 0.0F); };
  return std::hypot(positive(dx), positive(dy), positive(dz)) +
         std::min(std::max({dx, dy, dz}), 0.0F);
}

struct Cells {
  std::vector<Vector3f> sharp, smooth;
};

// Of the cells within one of the surface.
Cells CellsOf(const Distance& distance) {
  const std::vector<Vector3f> points = VolumePoints(kCells);
  std::vector<float> distances;
  std::vector<int64_t> near;
  for (size_t i = 0; i < points.size(); ++i) {
    distances.push_back(distance(points[i]));
    if (std::abs(distances.back()) < kCell) {
      near.push_back(static_cast<int64_t>(i));
    }
  }
  const std::vector<bool> sharp = AtSharpEdges(distances, kCells, 0, near);
  Cells cells;
  for (size_t i = 0; i < near.size(); ++i) {
    (sharp[i] ? cells.sharp : cells.smooth).push_back(points[near[i]]);
  }
  return cells;
}

TEST(SharpEdges, AreThoseOfABox) {
  constexpr float kHalf = 0.5F;
  const Cells cells =
      CellsOf([](const Vector3f& p) { return Box(p, kHalf, kHalf, kHalf); });
  // The distance to the nearest edge.
  const auto from_edge = [](const Vector3f& p) {
    std::vector<float> from_faces = {std::abs(std::abs(p.x) - kHalf),
                                     std::abs(std::abs(p.y) - kHalf),
                                     std::abs(std::abs(p.z) - kHalf)};
    std::sort(from_faces.begin(), from_faces.end());
    return std::hypot(from_faces[0], from_faces[1]);
  };
  ASSERT_GT(cells.sharp.size(), 12 * 16);
  for (const Vector3f& p : cells.sharp) EXPECT_LT(from_edge(p), 3 * kCell);
  for (const Vector3f& p : cells.smooth) EXPECT_GT(from_edge(p), 0.9F * kCell);
}

// Curves would take the weight of what is sharp, and thin walls, whose two
// sides lie close together, all of it.
TEST(SharpEdges, AreNeitherCurvesNorThinWalls) {
  const Cells ball = CellsOf(
      [](const Vector3f& p) { return std::hypot(p.x, p.y, p.z) - 0.6F; });
  EXPECT_TRUE(ball.sharp.empty());
  EXPECT_GT(ball.smooth.size(), 1000);
  const Cells wall =
      CellsOf([](const Vector3f& p) { return std::abs(p.z) - 1.4F * kCell; });
  EXPECT_TRUE(wall.sharp.empty());
  EXPECT_GT(wall.smooth.size(), 1000);
}

}  // namespace
}  // namespace trireme
