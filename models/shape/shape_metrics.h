// How alike two shapes are, and two sets of shapes.
//
// Surfaces are compared by points sampled on them (point_samples.h): distances
// have a floor that falls with the number of points, so compare at equal
// numbers, and read a generator's figures beside those of real shapes against
// real shapes. Any thread.

#ifndef TRIREME_MODELS_SHAPE_SHAPE_METRICS_H_
#define TRIREME_MODELS_SHAPE_SHAPE_METRICS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/point_samples.h"

namespace trireme {

// With d(x, Y) the distance of x from the nearest point of Y:
struct SurfaceComparison {
  // ½ (mean d(x, Y) + mean d(y, X)) (Mescheder et al., "Occupancy networks",
  // 2019).
  double chamfer_l1 = 0;
  // mean d(x, Y)² + mean d(y, X)² (Fan et al., "A point set generation
  // network", 2017).
  double chamfer_l2 = 0;
  // The harmonic mean of the shares of points within tau of the other surface
  // (Knapitsch et al., "Tanks and temples", 2017).
  double f_score = 0;
  // ½ (mean |n(x) · n(nearest y)| + the reverse) (Mescheder et al.).
  double normal_consistency = 0;
};

// Errors: a set without points.
absl::StatusOr<SurfaceComparison> CompareSurfaces(const SurfaceSamples& x,
                                                  const SurfaceSamples& y,
                                                  double tau = 0.01);

// Of two solids, by their signed distances at the same points, which are
// uniform in a volume that holds both. 1 where both are empty.
double VolumeIou(std::span<const float> x, std::span<const float> y);

// Squared Chamfer distance (chamfer_l2), the one that sets are compared by.
absl::StatusOr<double> ChamferDistance(std::span<const Vector3f> x,
                                       std::span<const Vector3f> y);

struct SetComparison {
  // Mean over the real shapes of the least distance to a generated one: lower
  // is better (minimum matching distance; Achlioptas et al., "Learning
  // representations and generative models for 3D point clouds", 2018).
  double mmd = 0;
  // The share of real shapes that are the nearest of some generated one: higher
  // is better (coverage; the same).
  double coverage = 0;
  // How often the nearest other shape, of both sets, is of the own set: 0.5
  // where the sets cannot be told apart (1-nearest-neighbour accuracy; Yang et
  // al., "PointFlow", 2019).
  double one_nn_accuracy = 0;
};

// By distances between shapes by number: the generated ones are 0 … generated -
// 1, the real ones follow. Ties go to the lower number. CHECKs that there is
// one of each.
SetComparison CompareSets(
    int64_t generated, int64_t real,
    const std::function<double(int64_t, int64_t)>& distance);

// The same for sets of points on each shape, by ChamferDistance. Errors: a set
// or a shape without anything.
absl::StatusOr<SetComparison> CompareShapeSets(
    const std::vector<std::vector<Vector3f>>& generated,
    const std::vector<std::vector<Vector3f>>& real);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPE_METRICS_H_
