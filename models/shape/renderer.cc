#include "models/shape/renderer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "models/shape/triangle_scene.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

constexpr double kSmoothUpTo = 40 * M_PI / 180;
// More triangles at one vertex are not smoothed: the time would grow with the
// square of their number.
constexpr size_t kMostAround = 64;
constexpr double kFieldOfView = 32 * M_PI / 180;
// From which a ball of radius 1.5 fills the picture.
constexpr double kCameraDistance = 5.6;
// How far the sky's light is looked for.
constexpr float kSkyDistance = 4;
constexpr float kOffset = 1e-3f;

const Vector3f kBackground = {0.96f, 0.96f, 0.97f};
const Vector3f kLight = Normalized(Vector3f{0.45f, 0.8f, 0.4f});

// At each corner of each triangle the mean of the normals of the triangles
// there that look in nearly the same direction, weighted by area.
std::vector<std::array<Vector3f, 3>> CornerNormals(const Mesh& mesh,
                                                   bool smooth) {
  std::vector<Vector3d> scaled;
  std::vector<std::vector<int32_t>> around(mesh.vertices.size());
  for (size_t t = 0; t < mesh.triangles.size(); ++t) {
    scaled.push_back(ScaledNormal(mesh, mesh.triangles[t]));
    for (const int32_t v : mesh.triangles[t]) {
      around[v].push_back(static_cast<int32_t>(t));
    }
  }
  const double least = std::cos(kSmoothUpTo);
  std::vector<std::array<Vector3f, 3>> normals(mesh.triangles.size());
  for (size_t t = 0; t < mesh.triangles.size(); ++t) {
    const Vector3d own = Normalized(scaled[t]);
    for (int i = 0; i < 3; ++i) {
      Vector3d sum = scaled[t];
      std::span<const int32_t> others = around[mesh.triangles[t][i]];
      if (!smooth || others.size() > kMostAround) others = {};
      for (const int32_t other : others) {
        if (other == static_cast<int32_t>(t)) continue;
        if (Dot(own, Normalized(scaled[other])) >= least) {
          sum = sum + scaled[other];
        }
      }
      normals[t][i] = Normalized(sum).As<float>();
    }
  }
  return normals;
}

// Directions about `normal`, as likely as their cosine.
Vector3f SkyDirection(const Vector3f& normal, double u, double v) {
  const Vector3f side = Normalized(
      Cross(std::abs(normal.y) < 0.9f ? Vector3f{0, 1, 0} : Vector3f{1, 0, 0},
            normal));
  const Vector3f up = Cross(normal, side);
  const double radius = std::sqrt(u);
  const double angle = 2 * M_PI * v;
  return side * static_cast<float>(radius * std::cos(angle)) +
         up * static_cast<float>(radius * std::sin(angle)) +
         normal * static_cast<float>(std::sqrt(1 - u));
}

struct Camera {
  Vector3f eye, back, right, up;

  explicit Camera(const CameraPlace& place) {
    const double a = place.azimuth * M_PI / 180;
    const double e = place.elevation * M_PI / 180;
    back = Vector3d{std::sin(a) * std::cos(e), std::sin(e),
                    std::cos(a) * std::cos(e)}
               .As<float>();
    right = Vector3d{std::cos(a), 0, -std::sin(a)}.As<float>();
    up = Cross(back, right);
    eye = back * static_cast<float>(kCameraDistance);
  }

  // Through (x, y) of the picture, from (0, 0) at the top left to (1, 1).
  Vector3f Direction(double x, double y) const {
    const double scale = std::tan(kFieldOfView / 2);
    return Normalized(right * static_cast<float>((2 * x - 1) * scale) +
                      up * static_cast<float>((1 - 2 * y) * scale) - back);
  }
};

class Renderer {
 public:
  Renderer(const Mesh& mesh, const RenderOptions& options)
      : mesh_(mesh),
        options_(options),
        scene_(mesh),
        normals_(CornerNormals(mesh, options.smooth)),
        ground_(BoundingBox(mesh).low.y) {}

  Image Render(const CameraPlace& place) const {
    const Camera camera(place);
    const int side = options_.side;
    Image image = FilledImage(side, side, 3, 255);
    const int sub = options_.antialias;
#pragma omp parallel for schedule(dynamic)
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        Vector3f sum;
        for (int s = 0; s < sub * sub; ++s) {
          const Vector3f direction =
              camera.Direction((x + (s % sub + 0.5) / sub) / side,
                               (y + (s / sub + 0.5) / sub) / side);
          const uint64_t ray =
              (static_cast<uint64_t>(y) * side + x) * sub * sub + s;
          sum = sum + Trace(camera.eye, direction, ray);
        }
        sum = sum * (1.0f / static_cast<float>(sub * sub));
        for (int c = 0; c < 3; ++c) {
          // Light to the display's values, by a power of 1/2.2.
          const double shown =
              std::pow(std::clamp(sum[c], 0.0f, 1.0f), 1 / 2.2);
          image.At(x, y)[c] = static_cast<uint8_t>(std::lround(255 * shown));
        }
      }
    }
    return image;
  }

  std::vector<float> Depths(const CameraPlace& place) const {
    const Camera camera(place);
    const int side = options_.side;
    std::vector<float> depths(static_cast<size_t>(side) * side, 1.0f);
#pragma omp parallel for schedule(dynamic)
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        const auto hit = scene_.FirstHit(
            camera.eye, camera.Direction((x + 0.5) / side, (y + 0.5) / side));
        if (!hit.has_value()) continue;
        depths[static_cast<size_t>(y) * side + x] = std::clamp(
            (hit->distance - static_cast<float>(kCameraDistance)) / kDepthRange,
            -1.0f, 1.0f);
      }
    }
    return depths;
  }

 private:
  Vector3f Trace(const Vector3f& eye, const Vector3f& direction,
                 uint64_t ray) const {
    const auto hit = scene_.FirstHit(eye, direction);
    if (hit.has_value()) {
      const auto& corner = normals_[hit->triangle];
      Vector3f normal =
          Normalized(corner[0] * static_cast<float>(hit->weights.x) +
                     corner[1] * static_cast<float>(hit->weights.y) +
                     corner[2] * static_cast<float>(hit->weights.z));
      Vector3f facing =
          Normalized(ScaledNormal(mesh_, mesh_.triangles[hit->triangle]))
              .As<float>();
      // Both sides of a triangle are shown.
      if (Dot(facing, direction) > 0) facing = facing * -1.0f;
      if (Dot(normal, facing) < 0) normal = normal * -1.0f;
      const Vector3f point = eye + direction * hit->distance + facing * kOffset;
      const float light = Light(point, normal, ray);
      const auto& color = options_.color;
      return Vector3f{color[0] * light, color[1] * light, color[2] * light};
    }
    const float to_ground =
        direction.y < 0 ? (ground_ - eye.y) / direction.y : -1;
    if (!options_.ground || to_ground <= 0) return kBackground;
    const Vector3f point =
        eye + direction * to_ground + Vector3f{0, kOffset, 0};
    // The ground fades into the background away from the shape.
    const float near = std::max(0.0f, 1 - std::hypot(point.x, point.z) / 2.6f);
    const float open = Light(point, {0, 1, 0}, ray) / Light();
    return kBackground * (1 - near * (1 - std::min(open, 1.0f)));
  }

  // What an unobstructed horizontal plane gets.
  static float Light() { return 0.62f + 0.5f * kLight.y; }

  // The sky's light, brighter from above, and the sun's, by how much of both
  // is seen.
  float Light(const Vector3f& point, const Vector3f& normal,
              uint64_t ray) const {
    const RandomStream random({.purpose = RandomPurpose::kSampling});
    float sky = 0;
    for (int i = 0; i < options_.sky_rays; ++i) {
      const uint64_t element = 2 * (ray * options_.sky_rays + i);
      // Stratified in one of the two, which halves the noise.
      const double u = (i + random.Uniform(element)) / options_.sky_rays;
      const Vector3f direction =
          SkyDirection(normal, u, random.Uniform(element + 1));
      if (scene_.Occluded(point, direction * kSkyDistance)) continue;
      sky += 0.42f + 0.2f * direction.y;
    }
    sky /= static_cast<float>(std::max(options_.sky_rays, 1));
    const float cosine = std::max(0.0f, Dot(normal, kLight));
    const bool lit = cosine > 0 && !scene_.Occluded(point, kLight * 8.0f);
    return sky + (lit ? 0.5f * cosine : 0);
  }

  const Mesh& mesh_;
  const RenderOptions& options_;
  const TriangleScene scene_;
  const std::vector<std::array<Vector3f, 3>> normals_;
  const float ground_;
};

}  // namespace

Image RenderMesh(const Mesh& mesh, const RenderOptions& options) {
  return RenderTurntable(mesh, 1, options)[0];
}

std::vector<Image> RenderTurntable(const Mesh& mesh, int views,
                                   const RenderOptions& options) {
  CHECK(options.side > 0 && options.antialias > 0 && options.sky_rays > 0);
  CHECK_GT(views, 0);
  const Renderer renderer(mesh, options);
  std::vector<Image> images;
  for (int view = 0; view < views; ++view) {
    CameraPlace place = options.camera;
    place.azimuth +=
        360.0f * static_cast<float>(view) / static_cast<float>(views);
    images.push_back(renderer.Render(place));
  }
  return images;
}

std::vector<DepthView> RenderViews(const Mesh& mesh,
                                   std::span<const CameraPlace> cameras,
                                   const RenderOptions& options) {
  CHECK(options.side > 0 && options.antialias > 0 && options.sky_rays > 0);
  const Renderer renderer(mesh, options);
  std::vector<DepthView> views;
  for (const CameraPlace& camera : cameras) {
    views.push_back({renderer.Render(camera), renderer.Depths(camera)});
  }
  return views;
}

std::vector<float> CameraRays(const CameraPlace& place, int side) {
  const Camera camera(place);
  const size_t pixels = static_cast<size_t>(side) * side;
  std::vector<float> rays(6 * pixels);
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const size_t pixel = static_cast<size_t>(y) * side + x;
      const Vector3f direction =
          camera.Direction((x + 0.5) / side, (y + 0.5) / side);
      const Vector3f moment = Cross(camera.eye, direction);
      for (int axis = 0; axis < 3; ++axis) {
        rays[axis * pixels + pixel] = direction[axis];
        rays[(3 + axis) * pixels + pixel] = moment[axis];
      }
    }
  }
  return rays;
}

}  // namespace trireme
