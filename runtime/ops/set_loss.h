// How far the values of sets of tokens are from their targets.

#ifndef TRIREME_RUNTIME_OPS_SET_LOSS_H_
#define TRIREME_RUNTIME_OPS_SET_LOSS_H_

#include "runtime/device/tensor.h"

namespace trireme {

// The sum over sets of the mean of (limit·tanh(value) − target)² over a set's
// tokens and channels, as one element in the compute type, and the values'
// gradient times `factor`. values and targets [b, n, c] of one type; counts
// int32 [b]: the tokens of each set, which come first.
Tensor SetLoss(const Tensor& values, const Tensor& targets,
               const Tensor& counts, double limit);
Tensor SetLossBackward(const Tensor& values, const Tensor& targets,
                       const Tensor& counts, double limit, double factor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SET_LOSS_H_
