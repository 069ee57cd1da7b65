// How far the values of sets of tokens are from their targets.

#ifndef TRIREME_RUNTIME_OPS_SET_LOSS_H_
#define TRIREME_RUNTIME_OPS_SET_LOSS_H_

#include <cstdint>

#include "runtime/device/tensor.h"

namespace trireme {

// Which tokens count: those whose kind is one of them, both included.
struct TokenKinds {
  int32_t first = 0;
  int32_t last = 0;
};

// The sum over sets of the mean of (limit·tanh(value) − target)² over the
// channels of a set's tokens that count, as one element in the compute type,
// and the values' gradient times `factor`. values and targets [b, n, c] of one
// type; kinds int32 [b, n]. A set without such tokens adds nothing.
Tensor SetLoss(const Tensor& values, const Tensor& targets, const Tensor& kinds,
               const TokenKinds& counted, double limit);
Tensor SetLossBackward(const Tensor& values, const Tensor& targets,
                       const Tensor& kinds, const TokenKinds& counted,
                       double limit, double factor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SET_LOSS_H_
