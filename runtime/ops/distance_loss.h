// What a field of truncated signed distances is compared with (Li et al.,
// "TripoSG", section 3.2): distances at queries, directions of its gradient on
// the surface, and that the gradient's length is 1 near it; or one of occupancy
// (Mescheder et al., "Occupancy networks", 2019). The gradient is
// that of central differences, g = (v₊ − v₋)/(2·step), so that nothing is
// differentiated twice.

#ifndef TRIREME_RUNTIME_OPS_DISTANCE_LOSS_H_
#define TRIREME_RUNTIME_OPS_DISTANCE_LOSS_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/cpu/autoencoder_kernels.h"

namespace trireme {

// Columns of a query: x, y, z, the signed distance there, and the outward unit
// normal of a point on the surface, zeros elsewhere.
inline constexpr int64_t kQueryColumns = 7;
// Of a field, at a query and on its six sides.
inline constexpr int64_t kDifferenceEvaluations = 7;

// What is compared: values [samples, rows, evaluations] with queries [samples,
// rows, 7], in the compute type. Evaluations are the query itself alone, or
// also a step along +x, −x, +y, −y, +z and −z.
struct DistanceComparison {
  Tensor values;
  Tensor queries;
  // Rows of each sample that are queries; those behind are padding.
  int64_t valid = 0;
  double step = 0;
  // Distances are over it, and end at ±1.
  double truncation = 1;
};

// Over the valid queries, with s = clamp(distance/truncation, −1, 1):
//   kDistance  Σ |v − s| + (v − s)²
//   kNormal    Σ 1 − cos(g, normal), where there is a normal
//   kEikonal   Σ (truncation·|g| − 1)², where |s| < 1
//   kOccupancy Σ log(1 + e^−v) + o·v: the binary cross-entropy of the logit −v
//              and o, 1 inside, 0 outside and ½ at distance 0
// as one element in the compute type. kNormal and kEikonal take seven
// evaluations.
Tensor DistanceLossSum(DistanceTerm term, const DistanceComparison& comparison);
// Of the values, times `factor`.
Tensor DistanceLossBackward(DistanceTerm term,
                            const DistanceComparison& comparison,
                            double factor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_DISTANCE_LOSS_H_
