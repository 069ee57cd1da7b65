#include "models/shape/triangle_scene.h"

#include <cmath>
#include <cstring>

#include "embree3/rtcore.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

struct Query {
  const Mesh* mesh;
  Vector3d point;
  ClosestPoint closest;
};

// Embree calls it for each triangle whose box is near enough.
bool Visit(RTCPointQueryFunctionArguments* arguments) {
  auto& query = *static_cast<Query*>(arguments->userPtr);
  const auto index = static_cast<int32_t>(arguments->primID);
  const Triangle& triangle = query.mesh->triangles[index];
  const auto a = query.mesh->vertices[triangle[0]].As<double>();
  const auto b = query.mesh->vertices[triangle[1]].As<double>();
  const auto c = query.mesh->vertices[triangle[2]].As<double>();
  const Barycentric weights = ClosestOnTriangle(a, b, c, query.point);
  const Vector3d point = a * weights.x + b * weights.y + c * weights.z;
  const double distance = Length(point - query.point);
  ClosestPoint& closest = query.closest;
  if (distance > closest.distance ||
      (distance == closest.distance && index > closest.triangle)) {
    return false;
  }
  closest = {index, weights, point, distance};
  // Slightly more, so that equally close triangles are seen whatever the order.
  arguments->query->radius =
      std::nextafter(static_cast<float>(distance) * 1.000001f, HUGE_VALF);
  return true;
}

template <typename Ray>
void SetRay(Ray& ray, const Vector3f& origin, const Vector3f& direction,
            float far) {
  ray.org_x = origin.x;
  ray.org_y = origin.y;
  ray.org_z = origin.z;
  ray.dir_x = direction.x;
  ray.dir_y = direction.y;
  ray.dir_z = direction.z;
  ray.tnear = 0;
  ray.tfar = far;
  ray.time = 0;
  ray.mask = ~0U;
  ray.flags = 0;
}

}  // namespace

struct TriangleScene::Handles {
  RTCDevice device = nullptr;
  RTCScene scene = nullptr;

  ~Handles() {
    rtcReleaseScene(scene);
    rtcReleaseDevice(device);
  }
};

Barycentric ClosestOnTriangle(const Vector3d& a, const Vector3d& b,
                              const Vector3d& c, const Vector3d& point) {
  const Vector3d ab = b - a;
  const Vector3d ac = c - a;
  const Vector3d ap = point - a;
  const double d1 = Dot(ab, ap);
  const double d2 = Dot(ac, ap);
  if (d1 <= 0 && d2 <= 0) return {1, 0, 0};
  const Vector3d bp = point - b;
  const double d3 = Dot(ab, bp);
  const double d4 = Dot(ac, bp);
  if (d3 >= 0 && d4 <= d3) return {0, 1, 0};
  const double vc = d1 * d4 - d3 * d2;
  if (vc <= 0 && d1 >= 0 && d3 <= 0) {
    const double v = d1 / (d1 - d3);
    return {1 - v, v, 0};
  }
  const Vector3d cp = point - c;
  const double d5 = Dot(ab, cp);
  const double d6 = Dot(ac, cp);
  if (d6 >= 0 && d5 <= d6) return {0, 0, 1};
  const double vb = d5 * d2 - d1 * d6;
  if (vb <= 0 && d2 >= 0 && d6 <= 0) {
    const double w = d2 / (d2 - d6);
    return {1 - w, 0, w};
  }
  const double va = d3 * d6 - d5 * d4;
  if (va <= 0 && d4 - d3 >= 0 && d5 - d6 >= 0) {
    const double w = (d4 - d3) / ((d4 - d3) + (d5 - d6));
    return {0, 1 - w, w};
  }
  const double sum = va + vb + vc;
  return {va / sum, vb / sum, vc / sum};
}

TriangleScene::TriangleScene(const Mesh& mesh)
    : mesh_(&mesh), handles_(std::make_unique<Handles>()) {
  // The hierarchy is built by the calling thread alone: whoever has many
  // meshes has a thread for each.
  handles_->device = rtcNewDevice("threads=1,user_threads=1");
  CHECK(handles_->device != nullptr) << rtcGetDeviceError(nullptr);
  handles_->scene = rtcNewScene(handles_->device);
  rtcSetSceneFlags(handles_->scene, RTC_SCENE_FLAG_ROBUST);
  RTCGeometry geometry =
      rtcNewGeometry(handles_->device, RTC_GEOMETRY_TYPE_TRIANGLE);
  // Embree's own copies: it reads a little beyond the end of what it shares.
  void* vertices = rtcSetNewGeometryBuffer(geometry, RTC_BUFFER_TYPE_VERTEX, 0,
                                           RTC_FORMAT_FLOAT3, sizeof(Vector3f),
                                           mesh.vertices.size());
  void* triangles = rtcSetNewGeometryBuffer(geometry, RTC_BUFFER_TYPE_INDEX, 0,
                                            RTC_FORMAT_UINT3, sizeof(Triangle),
                                            mesh.triangles.size());
  CHECK(vertices != nullptr && triangles != nullptr)
      << "Embree: no memory for " << mesh.triangles.size() << " triangles";
  std::memcpy(vertices, mesh.vertices.data(),
              mesh.vertices.size() * sizeof(Vector3f));
  std::memcpy(triangles, mesh.triangles.data(),
              mesh.triangles.size() * sizeof(Triangle));
  rtcCommitGeometry(geometry);
  rtcAttachGeometry(handles_->scene, geometry);
  rtcReleaseGeometry(geometry);
  rtcCommitScene(handles_->scene);
  CHECK_EQ(rtcGetDeviceError(handles_->device), RTC_ERROR_NONE);
}

TriangleScene::~TriangleScene() = default;
TriangleScene::TriangleScene(TriangleScene&&) noexcept = default;

ClosestPoint TriangleScene::Closest(const Vector3f& point) const {
  Query query{mesh_, point.As<double>(), {}};
  RTCPointQuery ask{};
  ask.x = point.x;
  ask.y = point.y;
  ask.z = point.z;
  ask.radius = HUGE_VALF;
  RTCPointQueryContext context;
  rtcInitPointQueryContext(&context);
  rtcPointQuery(handles_->scene, &ask, &context, &Visit, &query);
  return query.closest;
}

std::optional<RayHit> TriangleScene::FirstHit(const Vector3f& origin,
                                              const Vector3f& direction) const {
  RTCRayHit ray{};
  SetRay(ray.ray, origin, direction, HUGE_VALF);
  ray.hit.geomID = RTC_INVALID_GEOMETRY_ID;
  RTCIntersectContext context;
  rtcInitIntersectContext(&context);
  rtcIntersect1(handles_->scene, &context, &ray);
  if (ray.hit.geomID == RTC_INVALID_GEOMETRY_ID) return std::nullopt;
  return RayHit{static_cast<int32_t>(ray.hit.primID),
                {1.0 - ray.hit.u - ray.hit.v, ray.hit.u, ray.hit.v},
                ray.ray.tfar};
}

bool TriangleScene::Occluded(const Vector3f& origin,
                             const Vector3f& direction) const {
  RTCRay ray{};
  SetRay(ray, origin, direction, 1);
  RTCIntersectContext context;
  rtcInitIntersectContext(&context);
  rtcOccluded1(handles_->scene, &context, &ray);
  // Embree's mark of a ray that met something.
  return ray.tfar < 0;
}

}  // namespace trireme
