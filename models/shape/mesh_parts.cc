#include "models/shape/mesh_parts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace trireme {
namespace {

// Sets of vertices that grow together.
class Groups {
 public:
  explicit Groups(size_t count) : parent_(count) {
    std::iota(parent_.begin(), parent_.end(), 0);
  }
  int32_t Of(int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void Join(int32_t a, int32_t b) { parent_[Of(a)] = Of(b); }

 private:
  std::vector<int32_t> parent_;
};

using Place = std::array<int64_t, 3>;

// Joins groups that have vertices within `gap` of each other: each vertex is
// compared with those in the cubes of that side about it.
void JoinNeighbors(const Mesh& mesh, double gap, Groups& groups) {
  const auto place_of = [gap](const Vector3f& vertex) {
    Place place;
    for (int axis = 0; axis < 3; ++axis) {
      place[axis] = static_cast<int64_t>(std::floor(vertex[axis] / gap));
    }
    return place;
  };
  absl::flat_hash_map<Place, std::vector<int32_t>> cubes;
  for (size_t v = 0; v < mesh.vertices.size(); ++v) {
    cubes[place_of(mesh.vertices[v])].push_back(static_cast<int32_t>(v));
  }
  for (size_t v = 0; v < mesh.vertices.size(); ++v) {
    const Place own = place_of(mesh.vertices[v]);
    for (int i = 0; i < 27; ++i) {
      const auto cube = cubes.find(
          {own[0] + i % 3 - 1, own[1] + i / 3 % 3 - 1, own[2] + i / 9 - 1});
      if (cube == cubes.end()) continue;
      for (const int32_t other : cube->second) {
        const auto vertex = static_cast<int32_t>(v);
        if (groups.Of(vertex) == groups.Of(other)) continue;
        if (Length(mesh.vertices[v] - mesh.vertices[other]) <= gap) {
          groups.Join(vertex, other);
        }
      }
    }
  }
}

}  // namespace

Mesh KeepParts(const Mesh& mesh, KeptParts kept, double gap) {
  if (kept == KeptParts::kAll || mesh.triangles.empty()) return mesh;
  Groups groups(mesh.vertices.size());
  for (const Triangle& triangle : mesh.triangles) {
    groups.Join(triangle[0], triangle[1]);
    groups.Join(triangle[1], triangle[2]);
  }
  // The largest part by itself: many small ones together are no shape.
  std::vector<double> areas(mesh.vertices.size());
  for (const Triangle& triangle : mesh.triangles) {
    areas[groups.Of(triangle[0])] += Length(ScaledNormal(mesh, triangle)) / 2;
  }
  const auto largest = static_cast<int32_t>(
      std::max_element(areas.begin(), areas.end()) - areas.begin());
  if (kept == KeptParts::kTouching) JoinNeighbors(mesh, gap, groups);
  Mesh result;
  std::vector<int32_t> moved(mesh.vertices.size(), -1);
  for (const Triangle& triangle : mesh.triangles) {
    if (groups.Of(triangle[0]) != groups.Of(largest)) continue;
    Triangle& added = result.triangles.emplace_back();
    for (int i = 0; i < 3; ++i) {
      int32_t& to = moved[triangle[i]];
      if (to < 0) {
        to = static_cast<int32_t>(result.vertices.size());
        result.vertices.push_back(mesh.vertices[triangle[i]]);
      }
      added[i] = to;
    }
  }
  return result;
}

}  // namespace trireme
