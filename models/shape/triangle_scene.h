// Closest points and rays on a triangle mesh, through Embree's hierarchy of
// bounding boxes.
//
// Immutable once made; any number of threads may ask at once.

#ifndef TRIREME_MODELS_SHAPE_TRIANGLE_SCENE_H_
#define TRIREME_MODELS_SHAPE_TRIANGLE_SCENE_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>

#include "models/shape/mesh.h"

namespace trireme {

// Where on a triangle: point = sum of weights[i] · vertex i; a weight of
// exactly 0 says that it lies on the edge opposite of vertex i.
using Barycentric = Vector3d;

struct ClosestPoint {
  int32_t triangle = -1;
  Barycentric weights;
  Vector3d point;
  double distance = std::numeric_limits<double>::infinity();
};

struct RayHit {
  int32_t triangle = -1;
  Barycentric weights;
  float distance = 0;  // in lengths of the direction
};

// The point of a triangle that is closest to `point` (Ericson, "Real-Time
// Collision Detection", 5.1.5).
Barycentric ClosestOnTriangle(const Vector3d& a, const Vector3d& b,
                              const Vector3d& c, const Vector3d& point);

class TriangleScene {
 public:
  // Holds a reference to the mesh, which is a repaired one.
  explicit TriangleScene(const Mesh& mesh);
  ~TriangleScene();
  TriangleScene(TriangleScene&&) noexcept;
  TriangleScene& operator=(TriangleScene&&) = delete;

  // Of equally close triangles the first.
  ClosestPoint Closest(const Vector3f& point) const;

  // The first triangle that a ray meets, from either side; nothing if it meets
  // none.
  std::optional<RayHit> FirstHit(const Vector3f& origin,
                                 const Vector3f& direction) const;

  // Whether there is a triangle between origin and origin + direction.
  bool Occluded(const Vector3f& origin, const Vector3f& direction) const;

 private:
  struct Handles;
  const Mesh* mesh_;
  std::unique_ptr<Handles> handles_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_TRIANGLE_SCENE_H_
