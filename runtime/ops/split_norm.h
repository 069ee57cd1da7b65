// RMSNorm over rows that several ranks share, each with some of the columns:
//
//   y = x·r·weight,  r = 1/√(Σ x²/width + eps)
//   dx = r·weight·dy − x·r³·(Σ x·weight·dy)/width,  dweight = Σ rows x·r·dy
//
// with both row sums Σ over the columns of all ranks: whoever calls adds them
// up between the two halves. x[.., columns]; weight[columns] in x's dtype; sums
// fp64 [rows].

#ifndef TRIREME_RUNTIME_OPS_SPLIT_NORM_H_
#define TRIREME_RUNTIME_OPS_SPLIT_NORM_H_

#include <cstdint>

#include "runtime/device/tensor.h"

namespace trireme {

struct SplitNorm {
  int64_t width = 0;  // columns of all ranks
  double eps = 0;
};

// This rank's part of Σ x².
Tensor SplitNormSquares(const Tensor& x);
// y, from the whole sums.
Tensor SplitNormForward(const SplitNorm& norm, const Tensor& x,
                        const Tensor& weight, const Tensor& squares);
// This rank's part of Σ x·weight·dy.
Tensor SplitNormDots(const Tensor& x, const Tensor& weight, const Tensor& dy);
// dx, from the whole sums.
Tensor SplitNormBackward(const SplitNorm& norm, const Tensor& x,
                         const Tensor& weight, const Tensor& squares,
                         const Tensor& dy, const Tensor& dots);
// weight_gradient[columns] += dweight; fp32, for fp64 x fp64.
void SplitNormWeightGradient(const SplitNorm& norm, const Tensor& x,
                             const Tensor& squares, const Tensor& dy,
                             const Tensor& weight_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SPLIT_NORM_H_
