#include "models/shape/point_samples.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Uniform numbers come first in a stream, normal ones from here: a normal
// number takes two words of its own.
constexpr uint64_t kNormals = uint64_t{1} << 32;

}  // namespace

SurfaceSamples SampleSurface(const Mesh& mesh, int64_t count,
                             const RandomStream& random) {
  CHECK(!mesh.triangles.empty() && count >= 0);
  std::vector<double> area_up_to;
  double area = 0;
  for (const Triangle& triangle : mesh.triangles) {
    area += Length(ScaledNormal(mesh, triangle));
    area_up_to.push_back(area);
  }
  SurfaceSamples samples;
  for (int64_t i = 0; i < count; ++i) {
    std::array<double, 3> uniform;
    random.FillUniform(3 * i, uniform);
    const auto found = std::upper_bound(area_up_to.begin(), area_up_to.end(),
                                        uniform[0] * area);
    const auto index =
        std::min<int64_t>(found - area_up_to.begin(),
                          static_cast<int64_t>(mesh.triangles.size()) - 1);
    const Triangle& triangle = mesh.triangles[index];
    // Uniform on the triangle (Osada et al., "Shape distributions", 2002).
    const double root = std::sqrt(uniform[1]);
    const double b = root * (1 - uniform[2]);
    const double c = root * uniform[2];
    const auto point = mesh.vertices[triangle[0]].As<double>() * (1 - root) +
                       mesh.vertices[triangle[1]].As<double>() * b +
                       mesh.vertices[triangle[2]].As<double>() * c;
    samples.points.push_back(point.As<float>());
    samples.normals.push_back(
        Normalized(ScaledNormal(mesh, triangle)).As<float>());
  }
  return samples;
}

std::vector<Vector3f> NearSurfacePoints(const Mesh& mesh, int64_t count,
                                        const RandomStream& random, double near,
                                        double far) {
  std::vector<Vector3f> points = SampleSurface(mesh, count, random).points;
  for (int64_t i = 0; i < count; ++i) {
    std::array<double, 3> normal;
    random.FillNormal(kNormals + 3 * i, normal);
    const double deviation = i % 2 == 0 ? near : far;
    points[i] = (points[i].As<double>() +
                 Vector3d{normal[0], normal[1], normal[2]} * deviation)
                    .As<float>();
  }
  return points;
}

std::vector<Vector3f> UniformPoints(int64_t count, const RandomStream& random,
                                    double half_extent) {
  std::vector<Vector3f> points;
  for (int64_t i = 0; i < count; ++i) {
    std::array<double, 3> uniform;
    random.FillUniform(3 * i, uniform);
    points.push_back(
        (Vector3d{2 * uniform[0] - 1, 2 * uniform[1] - 1, 2 * uniform[2] - 1} *
         half_extent)
            .As<float>());
  }
  return points;
}

}  // namespace trireme
