// Mosaic-SDF (Yariv et al., "Mosaic-SDF for 3D generative models", 2024): a
// shape as a set of small cubes on its surface, each with a grid of signed
// distances; one cube is one token of a generator.
//
//   F(x) = Σ w_i(x) I_i((x − p_i) / s_i),   w_i(x) ∝ relu(1 − |(x − p_i) /
//   s_i|_∞)
//
// where I_i interpolates the grid of cube i trilinearly over [−1, 1]³.

#ifndef TRIREME_MODELS_SHAPE_MOSAIC_SDF_H_
#define TRIREME_MODELS_SHAPE_MOSAIC_SDF_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/nearest_points.h"
#include "models/shape/shape_field.h"
#include "models/shape/vector3.h"
#include "runtime/core/philox.h"

namespace trireme {

struct MosaicSdf {
  int resolution = 0;             // k: a grid has k³ values, at least 2³
  std::vector<Vector3f> centers;  // p [n]
  std::vector<float> scales;      // s [n], half the side of a cube
  std::vector<float> values;      // V [n, k, k, k], x fastest

  int64_t size() const { return static_cast<int64_t>(centers.size()); }
  int64_t values_of_one() const {
    return int64_t{resolution} * resolution * resolution;
  }
};

// As tokens: [n, 3 + 1 + k³], the centre, the scale and the values of each.
std::vector<float> MosaicTokens(const MosaicSdf& mosaic);
// The reverse. Errors: values that are not finite or whose number does not fit,
// a scale that is not positive.
absl::StatusOr<MosaicSdf> MosaicFromTokens(std::span<const float> tokens,
                                           int resolution);

// F at points. Immutable once made; any thread.
class MosaicField {
 public:
  // Holds a reference. The mosaic has at least one cube (CHECKed).
  explicit MosaicField(const MosaicSdf& mosaic);

  // Where no cube covers the point: what the cube that is nearest has at its
  // border there, and the distance to that border added with the same sign.
  float At(const Vector3f& point) const;
  void Distances(std::span<const Vector3f> points,
                 std::span<float> values) const;
  bool Covers(const Vector3f& point) const;
  // The cubes that may cover the point, those that do among them.
  std::span<const int32_t> Near(const Vector3f& point) const;

 private:
  const MosaicSdf* mosaic_;
  // For each cell of a grid over [−1, 1]³ the cubes that touch it: cell c has
  // cubes_[begins_[c]] up to cubes_[begins_[c + 1]].
  int cells_ = 0;
  std::vector<int32_t> begins_;
  std::vector<int32_t> cubes_;
  NearestPoints nearest_;
};

struct MosaicFitOptions {
  int grids = 1024;
  int resolution = 7;
  int steps = 150;
  int points = 512;  // of each step
  double value_rate = 1e-3;
  double place_rate = 1e-4;  // of centres and scales
  // Of |∇F − ∇sdf| beside |F − sdf|, by central differences.
  double gradient_weight = 0.1;
};

struct MosaicFit {
  MosaicSdf mosaic;
  // Mean |F − sdf| near the surface, before and after the steps.
  double first_error = 0;
  double last_error = 0;
  // The share of surface points that a cube covers.
  double coverage = 0;
};

// Centres by farthest-point sampling on the surface, the least common scale
// that covers it with a margin of a quarter, values from the field; then Adam
// on all three, scales staying above half the first one. The same for the same
// field and stream.
MosaicFit FitMosaic(const ShapeField& field, const MosaicFitOptions& options,
                    const RandomStream& random);

// Of points, `count` (at most all) that are far from one another: each the
// farthest from those before it, the first one first (Gonzalez, 1985). Indices.
std::vector<int32_t> FarthestPoints(std::span<const Vector3f> points,
                                    int64_t count);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MOSAIC_SDF_H_
