// The unsigned distance on a grid, a flood from outside, and marching cubes
// between the two.

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/shape/marching_cubes.h"
#include "models/shape/shape_field.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Points a side of the largest blocks that are filled at once.
constexpr int kBlock = 16;
// In cells: what is farther from the surface than the shell and the corners of
// the cells that it runs through.
constexpr double kFar = 3;
constexpr int kMarchedFirst = 32;

class DistanceGrid {
 public:
  DistanceGrid(const TriangleScene& scene, int cells)
      : cells_(cells), points_(cells + 1), side_(2.0 / cells) {
    values_.resize(int64_t{points_} * points_ * points_);
    const int blocks = (points_ + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(dynamic) collapse(3)
    for (int z = 0; z < blocks; ++z) {
      for (int y = 0; y < blocks; ++y) {
        for (int x = 0; x < blocks; ++x) {
          FillBlock(scene, x * kBlock, y * kBlock, z * kBlock, kBlock);
        }
      }
    }
  }

  double thickness() const { return std::sqrt(3.0) / 2 * side_; }

  // Makes negative what the thickened surface keeps from the border, and the
  // shell: from distances to the surface, signed ones to the shell's outside.
  void Sign() {
    const auto thickness = static_cast<float>(this->thickness());
    std::vector<bool> reached(values_.size());
    std::vector<int64_t> front;
    const auto reach = [&](int64_t index) {
      if (reached[index] || values_[index] <= thickness) return;
      reached[index] = true;
      front.push_back(index);
    };
    // The mesh lies within the border: all of that is outside.
    reach(0);
    const int64_t row = points_;
    const int64_t layer = row * points_;
    while (!front.empty()) {
      const int64_t index = front.back();
      front.pop_back();
      const int64_t x = index % row;
      const int64_t y = index / row % points_;
      const int64_t z = index / layer;
      if (x > 0) reach(index - 1);
      if (x < cells_) reach(index + 1);
      if (y > 0) reach(index - row);
      if (y < cells_) reach(index + row);
      if (z > 0) reach(index - layer);
      if (z < cells_) reach(index + layer);
    }
    for (size_t i = 0; i < values_.size(); ++i) {
      const float outside = values_[i] - thickness;
      values_[i] = reached[i] ? outside : -std::abs(outside);
    }
  }

  // At a point of the grid.
  float At(const Vector3f& point) const {
    const auto index = [&](float at) {
      return static_cast<int>(std::lround((at + 1) / side_));
    };
    return values_[Offset(index(point.x), index(point.y), index(point.z))];
  }

 private:
  int64_t Offset(int x, int y, int z) const {
    return (int64_t{z} * points_ + y) * points_ + x;
  }

  Vector3f PointAt(double x, double y, double z) const {
    return Vector3d{x * side_ - 1, y * side_ - 1, z * side_ - 1}.As<float>();
  }

  // Blocks are halved down to single points, but for those that are far as a
  // whole: there a lower bound does.
  void FillBlock(const TriangleScene& scene, int x0, int y0, int z0, int size) {
    if (std::max({x0, y0, z0}) >= points_) return;
    const double half = (size - 1) / 2.0;
    const double least =
        scene.Closest(PointAt(x0 + half, y0 + half, z0 + half)).distance -
        half * std::sqrt(3.0) * side_;
    if (size > 1 && least <= kFar * side_) {
      const int to = size / 2;
      for (int part = 0; part < 8; ++part) {
        FillBlock(scene, x0 + (part & 1) * to, y0 + (part >> 1 & 1) * to,
                  z0 + (part >> 2) * to, to);
      }
      return;
    }
    for (int z = z0; z < std::min(z0 + size, points_); ++z) {
      for (int y = y0; y < std::min(y0 + size, points_); ++y) {
        for (int x = x0; x < std::min(x0 + size, points_); ++x) {
          values_[Offset(x, y, z)] = static_cast<float>(least);
        }
      }
    }
  }

  const int cells_;
  const int points_;  // a side
  const double side_;
  std::vector<float> values_;
};

}  // namespace

absl::StatusOr<Mesh> OuterShell(const Mesh& mesh, int cells) {
  CHECK(cells >= 36 && cells <= 512) << cells;
  int refinements = 0;
  while (cells >> refinements > kMarchedFirst &&
         (cells >> refinements) % 2 == 0) {
    ++refinements;
  }
  DistanceGrid grid(TriangleScene(mesh), cells);
  grid.Sign();
  ASSIGN_OR_RETURN(
      Mesh shell,
      MarchingCubes(
          [&](std::span<const Vector3f> points, std::span<float> values) {
            std::transform(points.begin(), points.end(), values.begin(),
                           [&](const Vector3f& p) { return grid.At(p); });
            return absl::OkStatus();
          },
          {.cells = cells >> refinements, .refinements = refinements}));
  if (shell.triangles.empty()) {
    return InvalidArgument("the shell of {} triangles is empty",
                           mesh.triangles.size());
  }
  return shell;
}

}  // namespace trireme
