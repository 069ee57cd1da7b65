// A linear layer whose weight, W with a low-rank product beside it, is held by
// rows as directions and magnitudes (runtime/ops/weight_decomposition.h).

#ifndef TRIREME_RUNTIME_AUTOGRAD_WEIGHT_DECOMPOSITION_H_
#define TRIREME_RUNTIME_AUTOGRAD_WEIGHT_DECOMPOSITION_H_

#include "runtime/autograd/parameter.h"
#include "runtime/autograd/tape.h"

namespace trireme {

// squares[out] += ‖row of W‖², of the columns that are here; fp64.
void AddRowSquares(const Parameter& weight, const Tensor& squares);

// squares[out] += ‖row of W + scale·B·A‖², for A [groups, rank, in] and B [out,
// rank] of the shapes of parallel/layers/low_rank_adapter.h. The sum is never
// made: with P = W·Aᵀ [out, rank] and G = A·Aᵀ [rank, rank] it is, row by row,
//
//   ‖W‖² + 2·scale·Σ P∘B + scale²·Σ (B·G)∘B
//
// which takes as long as `rank` tokens do in the layer. ‖W‖² is not kept from
// one pass to the next: the product reads W anyway, and it would have to come
// and go with the layer. All of it is linear in the columns: parts of ranks
// that share rows add up.
void AddAdaptedRowSquares(const Parameter& weight, const Parameter& a,
                          const Parameter& b, double scale,
                          const Tensor& squares);

// y[.., out] = x·magnitude/√squares, squares being a constant of the gradient.
// Keeps x.
Variable ScaleByMagnitude(Tape& tape, const Variable& x, Parameter& magnitude,
                          const Tensor& squares);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_WEIGHT_DECOMPOSITION_H_
