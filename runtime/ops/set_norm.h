// Group normalisation (Wu and He, "Group normalization") of sets of tokens of
// unlike sizes: each set's mean and variance are over its own tokens and the
// channels of a group; padding does not count and becomes zeros.

#ifndef TRIREME_RUNTIME_OPS_SET_NORM_H_
#define TRIREME_RUNTIME_OPS_SET_NORM_H_

#include <cstdint>

#include "runtime/device/tensor.h"

namespace trireme {

struct SetNormResult {
  Tensor out;
  // fp64 [b, groups, 2]: mean and 1/√(variance + eps), for backward.
  Tensor moments;
};

// y = (x − mean)/√(variance + eps)·weight[c] + bias[c]. x [b, n, c]; counts
// int32 [b]: the tokens of each set, which come first; `groups` divides c
// (CHECKed). Sums are fp64, in one order.
SetNormResult SetNorm(const Tensor& x, const Tensor& counts, int64_t groups,
                      const Tensor& weight, const Tensor& bias, double eps);

// The gradient of x. Adds those of weight and bias, in the compute type, where
// they are asked for.
Tensor SetNormBackward(const Tensor& x, const Tensor& counts, int64_t groups,
                       const Tensor& weight, const Tensor& moments,
                       const Tensor& grad_out, const Tensor* weight_grad,
                       const Tensor* bias_grad);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SET_NORM_H_
