#include "models/shape/winding_number.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace trireme {
namespace {

constexpr int32_t kLeaf = 8;
// A group counts as one dipole from so many of its radii away.
constexpr double kFar = 3;

// The solid angle of a triangle (Van Oosterom and Strackee, 1983).
double SolidAngle(const Mesh& mesh, const Triangle& triangle,
                  const Vector3d& point) {
  const Vector3d a = mesh.vertices[triangle[0]].As<double>() - point;
  const Vector3d b = mesh.vertices[triangle[1]].As<double>() - point;
  const Vector3d c = mesh.vertices[triangle[2]].As<double>() - point;
  const double la = Length(a);
  const double lb = Length(b);
  const double lc = Length(c);
  return 2 *
         std::atan2(Dot(a, Cross(b, c)), la * lb * lc + Dot(a, b) * lc +
                                             Dot(b, c) * la + Dot(c, a) * lb);
}

Vector3d Centroid(const Mesh& mesh, const Triangle& triangle) {
  return (mesh.vertices[triangle[0]].As<double>() +
          mesh.vertices[triangle[1]].As<double>() +
          mesh.vertices[triangle[2]].As<double>()) *
         (1.0 / 3);
}

}  // namespace

WindingNumber::WindingNumber(const Mesh& mesh)
    : mesh_(&mesh), order_(mesh.triangles.size()) {
  std::iota(order_.begin(), order_.end(), 0);
  Build(0, static_cast<int32_t>(order_.size()));
}

void WindingNumber::Build(int32_t first, int32_t count) {
  const auto index = static_cast<int32_t>(nodes_.size());
  nodes_.push_back({.first = first, .count = count});
  Node node = nodes_.back();
  double weight = 0;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Vector3d low{kInfinity, kInfinity, kInfinity};
  Vector3d high = low * -1.0;
  for (int32_t i = first; i < first + count; ++i) {
    const Triangle& triangle = mesh_->triangles[order_[i]];
    const Vector3d normal = ScaledNormal(*mesh_, triangle) * 0.5;
    const Vector3d centroid = Centroid(*mesh_, triangle);
    node.area = node.area + normal;
    node.center = node.center + centroid * Length(normal);
    weight += Length(normal);
    low = {std::min(low.x, centroid.x), std::min(low.y, centroid.y),
           std::min(low.z, centroid.z)};
    high = {std::max(high.x, centroid.x), std::max(high.y, centroid.y),
            std::max(high.z, centroid.z)};
  }
  node.center = weight > 0 ? node.center * (1 / weight) : low;
  for (int32_t i = first; i < first + count; ++i) {
    for (const int32_t v : mesh_->triangles[order_[i]]) {
      node.radius = std::max(
          node.radius, Length(mesh_->vertices[v].As<double>() - node.center));
    }
  }
  if (count > kLeaf) {
    const Vector3d sides = high - low;
    const int axis = sides.x >= sides.y && sides.x >= sides.z ? 0
                     : sides.y >= sides.z                     ? 1
                                                              : 2;
    const int32_t half = count / 2;
    const auto begin = order_.begin() + first;
    // By index where centroids agree, so that the order is one.
    std::nth_element(
        begin, begin + half, begin + count, [&](int32_t a, int32_t b) {
          const double at_a = Centroid(*mesh_, mesh_->triangles[a])[axis];
          const double at_b = Centroid(*mesh_, mesh_->triangles[b])[axis];
          return at_a != at_b ? at_a < at_b : a < b;
        });
    Build(first, half);
    Build(first + half, count - half);
  }
  node.skip = static_cast<int32_t>(nodes_.size());
  nodes_[index] = node;
}

double WindingNumber::At(const Vector3f& point) const {
  const auto from = point.As<double>();
  double angle = 0;
  int32_t next = 0;
  while (next < static_cast<int32_t>(nodes_.size())) {
    const Node& node = nodes_[next];
    const Vector3d to = node.center - from;
    const double distance = Length(to);
    if (distance > kFar * node.radius) {
      angle += Dot(node.area, to) / (distance * distance * distance);
      next = node.skip;
    } else if (node.count <= kLeaf) {
      for (int32_t i = node.first; i < node.first + node.count; ++i) {
        angle += SolidAngle(*mesh_, mesh_->triangles[order_[i]], from);
      }
      next = node.skip;
    } else {
      ++next;
    }
  }
  return angle / (4 * M_PI);
}

double ExactWindingNumber(const Mesh& mesh, const Vector3f& point) {
  double angle = 0;
  for (const Triangle& triangle : mesh.triangles) {
    angle += SolidAngle(mesh, triangle, point.As<double>());
  }
  return angle / (4 * M_PI);
}

}  // namespace trireme
