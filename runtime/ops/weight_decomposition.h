// Weights as directions and magnitudes: row r of W' is
//
//   magnitude[r]·W[r]/‖W[r]‖
//
// (Liu et al., "DoRA: Weight-decomposed low-rank adaptation", equation 5),
// computed on what W makes, so that W' is nowhere: y'[.., r] is y[.., r] times
// magnitude[r]/‖W[r]‖. The norm is a constant of the gradient (section 4.3
// there): dy = dy'·magnitude/‖W‖, dmagnitude = Σ rows dy'·y/‖W‖. A row of zeros
// has no direction: its factor is 0.
//
// Squares of norms are fp64 [rows] and sums, of which ranks that share rows
// have a part each; magnitudes, factors and gradients are in the compute type.

#ifndef TRIREME_RUNTIME_OPS_WEIGHT_DECOMPOSITION_H_
#define TRIREME_RUNTIME_OPS_WEIGHT_DECOMPOSITION_H_

#include "runtime/device/tensor.h"

namespace trireme {

// sums[rows] += factor·Σ columns a·b, of two matrices of one type.
void AddRowProducts(const Tensor& a, const Tensor& b, double factor,
                    const Tensor& sums);

struct DirectionFactors {
  Tensor scale;    // [rows], magnitude/√squares
  Tensor inverse;  // [rows], 1/√squares
};
DirectionFactors MakeDirectionFactors(const Tensor& magnitude,
                                      const Tensor& squares);

// y[.., n] = x[.., n]·factors[n].
Tensor ScaleColumns(const Tensor& x, const Tensor& factors);

// gradient[n] += Σ rows x·grad_out·inverse[n].
void AddMagnitudeGradient(const Tensor& x, const Tensor& grad_out,
                          const Tensor& inverse, const Tensor& gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_WEIGHT_DECOMPOSITION_H_
