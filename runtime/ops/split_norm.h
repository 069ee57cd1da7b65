// RMSNorm of heads over the width of all of them, which several ranks share,
// each with some heads; then rotation (normalization.h), if there is any:
//
//   n = x·r·weight,  r = 1/√(Σ x²/width + eps);  y = rotated n
//   dx = r·weight·dn − x·r³·(Σ x·weight·dn)/width,  dweight = Σ rows x·r·dn
//
// with both row sums Σ over the columns of all ranks: whoever calls adds them
// up between the two halves. x, y and their gradients are views of some heads,
// of at most 1024 channels each; weight[heads·head_dim] is in x's dtype; sums
// are fp64 [rows].

#ifndef TRIREME_RUNTIME_OPS_SPLIT_NORM_H_
#define TRIREME_RUNTIME_OPS_SPLIT_NORM_H_

#include <cstdint>

#include "runtime/ops/heads_view.h"
#include "runtime/ops/normalization.h"

namespace trireme {

struct SplitNorm {
  int64_t width = 0;  // channels of all ranks
  double eps = 0;
  const RopeTable* rope = nullptr;  // null: no rotation
};

// This rank's part of Σ x².
void SplitNormSquares(const HeadsView& x, const Tensor& squares);
// y, from the whole sums.
void SplitNormForward(const SplitNorm& norm, const HeadsView& x,
                      const Tensor& weight, const Tensor& squares,
                      const HeadsView& y);
// This rank's part of Σ x·weight·dn.
void SplitNormDots(const SplitNorm& norm, const HeadsView& x,
                   const Tensor& weight, const HeadsView& dy,
                   const Tensor& dots);
// dx, from the whole sums.
void SplitNormBackward(const SplitNorm& norm, const HeadsView& x,
                       const Tensor& weight, const Tensor& squares,
                       const HeadsView& dy, const Tensor& dots,
                       const HeadsView& dx);
// weight_gradient += dweight; fp32, for fp64 x fp64.
void SplitNormWeightGradient(const SplitNorm& norm, const HeadsView& x,
                             const Tensor& squares, const HeadsView& dy,
                             const Tensor& weight_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SPLIT_NORM_H_
