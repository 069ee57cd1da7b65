// The nearest of many points, through nanoflann's k-d tree.

#ifndef TRIREME_MODELS_SHAPE_NEAREST_POINTS_H_
#define TRIREME_MODELS_SHAPE_NEAREST_POINTS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "models/shape/vector3.h"

namespace trireme {

// Immutable once made; any number of threads may ask at once.
class NearestPoints {
 public:
  // Holds a reference to the points: at least one (CHECKed), all finite.
  explicit NearestPoints(std::span<const Vector3f> points);
  ~NearestPoints();
  NearestPoints(NearestPoints&&) noexcept;
  NearestPoints& operator=(NearestPoints&&) = delete;

  struct Found {
    int64_t index;
    double distance;
  };
  Found Nearest(const Vector3f& point) const;

 private:
  struct Tree;
  std::unique_ptr<const Tree> tree_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_NEAREST_POINTS_H_
