#include "models/shape/shape_field.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "models/shape/point_samples.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A winding number so near to a whole number is taken for it.
constexpr double kWhole = 0.1;
// Of the points so many may be elsewhere: a small hole's surroundings.
constexpr double kMostBetween = 0.01;
constexpr double kOnSurface = 1e-6;
// By which a ray begins behind the triangle that it has passed.
constexpr double kBehindSurface = 1e-4;
// Triangles that a ray passes inside of a shape before it counts as thick.
constexpr int kMostThrough = 8;

double AngleAt(const Vector3d& at, const Vector3d& b, const Vector3d& c) {
  const Vector3d to_b = b - at;
  const Vector3d to_c = c - at;
  return std::atan2(Length(Cross(to_b, to_c)), Dot(to_b, to_c));
}

}  // namespace

std::string_view NameOf(SignRule rule) {
  switch (rule) {
    case SignRule::kPseudoNormal:
      return "pseudo_normal";
    case SignRule::kWindingNumber:
      return "winding_number";
    case SignRule::kFloodFill:
      return "flood_fill";
  }
  LOG(FATAL) << "no rule " << static_cast<int>(rule);
  return "";
}

SignRule ChooseSignRule(const Mesh& mesh, int samples) {
  const WindingNumber winding(mesh);
  std::vector<Vector3f> points = UniformPoints(
      samples / 2, RandomStream({.purpose = RandomPurpose::kSampling}));
  for (const Vector3f& point : NearSurfacePoints(
           mesh, samples - samples / 2,
           RandomStream({.layer = 1, .purpose = RandomPurpose::kSampling}))) {
    points.push_back(point);
  }
  int between = 0;
  int unusual = 0;
  for (const Vector3f& point : points) {
    const double number = winding.At(point);
    const double whole = std::round(number);
    between += std::abs(number - whole) > kWhole;
    unusual += whole != 0 && whole != 1;
  }
  if (unusual == 0 && between == 0 && TopologyOf(mesh).Manifold()) {
    return SignRule::kPseudoNormal;
  }
  return between <= kMostBetween * samples ? SignRule::kWindingNumber
                                           : SignRule::kFloodFill;
}

absl::StatusOr<ShapeField> ShapeField::Create(
    Mesh mesh, const ShapeFieldOptions& options) {
  const SignRule rule = ChooseSignRule(mesh);
  if (rule == SignRule::kFloodFill) {
    ASSIGN_OR_RETURN(mesh, OuterShell(mesh, options.shell_cells));
  }
  return ShapeField(std::make_unique<const Mesh>(std::move(mesh)), rule);
}

ShapeField::ShapeField(std::unique_ptr<const Mesh> mesh, SignRule rule)
    : mesh_(std::move(mesh)), rule_(rule), scene_(*mesh_) {
  if (rule_ == SignRule::kWindingNumber) {
    winding_.emplace(*mesh_);
  } else {
    // A shell is a closed manifold.
    MakePseudoNormals();
  }
}

void ShapeField::MakePseudoNormals() {
  vertex_normals_.resize(mesh_->vertices.size());
  edge_normals_.resize(mesh_->triangles.size());
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Vector3d> of_edges;
  const auto edge_of = [](const Triangle& triangle, int i) {
    return std::pair(std::minmax(triangle[(i + 1) % 3], triangle[(i + 2) % 3]));
  };
  for (const Triangle& triangle : mesh_->triangles) {
    const Vector3d normal = Normalized(ScaledNormal(*mesh_, triangle));
    for (int i = 0; i < 3; ++i) {
      const auto at = [&](int k) {
        return mesh_->vertices[triangle[(i + k) % 3]].As<double>();
      };
      Vector3d& vertex = vertex_normals_[triangle[i]];
      vertex = vertex + normal * AngleAt(at(0), at(1), at(2));
      Vector3d& edge = of_edges[edge_of(triangle, i)];
      edge = edge + normal;
    }
  }
  for (size_t t = 0; t < mesh_->triangles.size(); ++t) {
    for (int i = 0; i < 3; ++i) {
      edge_normals_[t][i] = of_edges[edge_of(mesh_->triangles[t], i)];
    }
  }
}

bool ShapeField::IsInside(const ClosestPoint& closest,
                          const Vector3f& point) const {
  if (rule_ == SignRule::kWindingNumber) {
    return std::abs(winding_->At(point)) >= 0.5;
  }
  const Triangle& triangle = mesh_->triangles[closest.triangle];
  Vector3d normal = ScaledNormal(*mesh_, triangle);
  for (int i = 0; i < 3; ++i) {
    if (closest.weights[i] == 0) normal = edge_normals_[closest.triangle][i];
  }
  for (int i = 0; i < 3; ++i) {
    if (closest.weights[i] == 1) normal = vertex_normals_[triangle[i]];
  }
  return Dot(point.As<double>() - closest.point, normal) < 0;
}

SignedDistance ShapeField::At(const Vector3f& point) const {
  const ClosestPoint closest = scene_.Closest(point);
  const double sign = IsInside(closest, point) ? -1 : 1;
  // On the surface itself the way to it is rounding.
  const Vector3d gradient =
      closest.distance > kOnSurface
          ? (point.As<double>() - closest.point) * (sign / closest.distance)
          : Normalized(
                ScaledNormal(*mesh_, mesh_->triangles[closest.triangle]));
  return {static_cast<float>(sign * closest.distance), gradient.As<float>()};
}

double ShapeField::ThicknessUnder(const Vector3f& point,
                                  const SignedDistance& nearest,
                                  double most) const {
  const Vector3f inwards = nearest.gradient * -1.0F;
  const Vector3f surface = point + inwards * nearest.distance;
  // Parts may overlap, so that a triangle is no end where the shape goes on
  // behind it.
  double through = 0;
  for (int parts = 0; parts < kMostThrough; ++parts) {
    const auto from =
        surface + inwards * static_cast<float>(through + kBehindSurface);
    const auto hit = scene_.FirstHit(from, inwards);
    if (!hit.has_value()) return most;
    through += kBehindSurface + hit->distance;
    if (through >= most) return most;
    const Vector3f behind =
        surface + inwards * static_cast<float>(through + kBehindSurface);
    if (At(behind).distance > 0) return through;
  }
  return most;
}

void ShapeField::ThickenedDistances(std::span<const Vector3f> points,
                                    double least,
                                    std::span<float> values) const {
  CHECK_EQ(points.size(), values.size());
#pragma omp parallel for schedule(dynamic, 256)
  for (size_t i = 0; i < points.size(); ++i) {
    const SignedDistance nearest = At(points[i]);
    values[i] = nearest.distance;
    values[i] -= static_cast<float>(
        (least - ThicknessUnder(points[i], nearest, least)) / 2);
  }
}

void ShapeField::Distances(std::span<const Vector3f> points,
                           std::span<float> values) const {
  CHECK_EQ(points.size(), values.size());
#pragma omp parallel for schedule(dynamic, 256)
  for (size_t i = 0; i < points.size(); ++i) {
    values[i] = At(points[i]).distance;
  }
}

}  // namespace trireme
