#include "models/shape/mesh.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// In units of the file. A millimetre part in metres and a city in millimetres
// are within; a stray vertex at 1e30 is not.
constexpr double kLeastExtent = 1e-6;
constexpr double kMostExtent = 1e9;
// Twice a triangle's area by the square of its longest edge: below, the
// triangle is a line as far as floats can tell.
constexpr double kLeastAspect = 1e-7;

using Position = std::array<uint32_t, 3>;

// Equal for equal positions: adding zero makes -0 the same as 0.
Position PositionOf(const Vector3f& v) {
  return {std::bit_cast<uint32_t>(v.x + 0.0f),
          std::bit_cast<uint32_t>(v.y + 0.0f),
          std::bit_cast<uint32_t>(v.z + 0.0f)};
}

// The triangle beginning with its least index, its orientation kept.
Triangle Rotated(Triangle triangle) {
  std::rotate(triangle.begin(),
              std::min_element(triangle.begin(), triangle.end()),
              triangle.end());
  return triangle;
}

bool IsDegenerate(const Mesh& mesh, const Triangle& triangle) {
  double longest = 0;
  for (int i = 0; i < 3; ++i) {
    const auto edge = mesh.vertices[triangle[(i + 1) % 3]].As<double>() -
                      mesh.vertices[triangle[i]].As<double>();
    longest = std::max(longest, Dot(edge, edge));
  }
  return Length(ScaledNormal(mesh, triangle)) <= kLeastAspect * longest;
}

double LongestSide(const Box& box) {
  const auto sides = box.high.As<double>() - box.low.As<double>();
  return std::max({sides.x, sides.y, sides.z});
}

}  // namespace

absl::StatusOr<MeshRepairs> RepairMesh(Mesh& mesh) {
  MeshRepairs repairs;
  if (mesh.triangles.empty()) {
    return InvalidArgument("no triangle among {} vertices",
                           mesh.vertices.size());
  }
  const auto count = static_cast<int64_t>(mesh.vertices.size());
  std::vector<int32_t> welded_to(count);
  absl::flat_hash_map<Position, int32_t> first;
  for (int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<int32_t>(i);
    welded_to[i] = IsFinite(mesh.vertices[i])
                       ? first.try_emplace(PositionOf(mesh.vertices[i]), index)
                             .first->second
                       : index;
    repairs.welded += welded_to[i] != index;
  }

  Mesh repaired;
  std::vector<int32_t> renamed(count, -1);
  absl::flat_hash_set<Triangle> seen;
  for (Triangle triangle : mesh.triangles) {
    if (std::any_of(triangle.begin(), triangle.end(),
                    [&](int32_t i) { return i < 0 || i >= count; })) {
      ++repairs.out_of_range;
      continue;
    }
    if (std::any_of(triangle.begin(), triangle.end(),
                    [&](int32_t i) { return !IsFinite(mesh.vertices[i]); })) {
      ++repairs.not_finite;
      continue;
    }
    for (int32_t& i : triangle) i = welded_to[i];
    if (IsDegenerate(mesh, triangle)) {
      ++repairs.degenerate;
      continue;
    }
    if (!seen.insert(Rotated(triangle)).second) {
      ++repairs.duplicate;
      continue;
    }
    for (int32_t& i : triangle) {
      if (renamed[i] < 0) {
        renamed[i] = static_cast<int32_t>(repaired.vertices.size());
        repaired.vertices.push_back(mesh.vertices[i]);
      }
      i = renamed[i];
    }
    repaired.triangles.push_back(triangle);
  }
  if (repaired.triangles.empty()) {
    return InvalidArgument(
        "none of {} triangles is one: {} with an index out of range, {} with a "
        "vertex that is not finite, {} without area",
        mesh.triangles.size(), repairs.out_of_range, repairs.not_finite,
        repairs.degenerate);
  }
  repairs.unused =
      count - repairs.welded - static_cast<int64_t>(repaired.vertices.size());
  const double extent = LongestSide(BoundingBox(repaired));
  if (!(extent >= kLeastExtent && extent <= kMostExtent)) {
    return InvalidArgument("a size of {:g} units, expected {:g} to {:g}",
                           extent, kLeastExtent, kMostExtent);
  }
  mesh = std::move(repaired);
  return repairs;
}

Box BoundingBox(const Mesh& mesh) {
  CHECK(!mesh.vertices.empty());
  Box box{mesh.vertices[0], mesh.vertices[0]};
  for (const Vector3f& v : mesh.vertices) {
    box.low = {std::min(box.low.x, v.x), std::min(box.low.y, v.y),
               std::min(box.low.z, v.z)};
    box.high = {std::max(box.high.x, v.x), std::max(box.high.y, v.y),
                std::max(box.high.z, v.z)};
  }
  return box;
}

void NormalizeMesh(Mesh& mesh, double half_extent) {
  const Box box = BoundingBox(mesh);
  const auto center = (box.low.As<double>() + box.high.As<double>()) * 0.5;
  const double scale = 2 * half_extent / LongestSide(box);
  for (Vector3f& v : mesh.vertices) {
    v = ((v.As<double>() - center) * scale).As<float>();
  }
}

MeshTopology TopologyOf(const Mesh& mesh) {
  struct Edge {
    int32_t along = 0;    // triangles that run from the lesser index
    int32_t against = 0;  // and towards it
    int32_t triangle = 0;
  };
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Edge> edges;
  const auto count = static_cast<int32_t>(mesh.triangles.size());
  // A forest over the triangles, for the components.
  std::vector<int32_t> parent(count);
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::vector<bool> used(mesh.vertices.size());
  for (int32_t t = 0; t < count; ++t) {
    for (int i = 0; i < 3; ++i) {
      const int32_t a = mesh.triangles[t][i];
      const int32_t b = mesh.triangles[t][(i + 1) % 3];
      used[a] = true;
      const auto [entry, is_new] =
          edges.try_emplace(std::minmax(a, b), Edge{.triangle = t});
      (a < b ? entry->second.along : entry->second.against) += 1;
      if (!is_new) parent[root(t)] = root(entry->second.triangle);
    }
  }
  MeshTopology topology;
  topology.vertices = std::count(used.begin(), used.end(), true);
  topology.edges = static_cast<int64_t>(edges.size());
  topology.triangles = count;
  for (const auto& [ends, edge] : edges) {
    topology.open_edges += edge.along != edge.against;
    topology.crowded_edges += edge.along + edge.against > 2;
  }
  for (int32_t t = 0; t < count; ++t) topology.components += root(t) == t;
  return topology;
}

double SurfaceArea(const Mesh& mesh) {
  double area = 0;
  for (const Triangle& triangle : mesh.triangles) {
    area += Length(ScaledNormal(mesh, triangle)) / 2;
  }
  return area;
}

double EnclosedVolume(const Mesh& mesh) {
  double volume = 0;
  for (const Triangle& triangle : mesh.triangles) {
    volume += Dot(mesh.vertices[triangle[0]].As<double>(),
                  ScaledNormal(mesh, triangle)) /
              6;
  }
  return volume;
}

Vector3d ScaledNormal(const Mesh& mesh, const Triangle& triangle) {
  const auto a = mesh.vertices[triangle[0]].As<double>();
  return Cross(mesh.vertices[triangle[1]].As<double>() - a,
               mesh.vertices[triangle[2]].As<double>() - a);
}

}  // namespace trireme
