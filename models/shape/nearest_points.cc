#include "models/shape/nearest_points.h"

#include <cmath>

#include "nanoflann.hpp"
#include "runtime/core/log.h"

namespace trireme {
namespace {

// What nanoflann asks of a set of points, in its own names.
struct PointSet {
  std::span<const Vector3f> points;

  size_t kdtree_get_point_count() const { return points.size(); }
  float kdtree_get_pt(size_t index, size_t axis) const {
    return points[index][static_cast<int>(axis)];
  }
  template <typename Box>
  bool kdtree_get_bbox(Box&) const {
    return false;
  }
};

using Index = nanoflann::KDTreeSingleIndexAdaptor<
    nanoflann::L2_Simple_Adaptor<float, PointSet, double>, PointSet, 3,
    uint32_t>;

}  // namespace

struct NearestPoints::Tree {
  explicit Tree(std::span<const Vector3f> points)
      : set{points}, index(3, set) {}

  PointSet set;
  Index index;
};

NearestPoints::NearestPoints(std::span<const Vector3f> points) {
  CHECK(!points.empty());
  tree_ = std::make_unique<const Tree>(points);
}

NearestPoints::~NearestPoints() = default;
NearestPoints::NearestPoints(NearestPoints&&) noexcept = default;

NearestPoints::Found NearestPoints::Nearest(const Vector3f& point) const {
  uint32_t index = 0;
  double squared = 0;
  tree_->index.knnSearch(&point.x, 1, &index, &squared);
  return {index, std::sqrt(squared)};
}

}  // namespace trireme
