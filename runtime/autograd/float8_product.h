// A linear layer's products of operands in FP8 (runtime/ops/float8.h), which
// are rounded from what the layer has: by scales of an earlier step, where the
// layer has them of both operands, otherwise by scales of their own rows.

#ifndef TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_
#define TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_

#include <functional>
#include <string_view>

#include "runtime/autograd/float8_delay.h"
#include "runtime/ops/float8.h"

namespace trireme {

// Makes each scale, in place, the largest of all ranks that have a part of the
// vectors; null where vectors are whole.
using AgreeOnScales = std::function<void(const Tensor& scales)>;

// out[.., n] = x[.., k]·b + bias[n], in x's dtype: b is `weight` transposed,
// [n, k], for Float8Of::kRows, and `weight` itself, [k, n], for kColumns.
// `of_x`: which of the layer's operands x is. `bias` may be null. Where the
// delay is active, it learns what both operands need.
Tensor Float8Product(const Tensor& x, Float8Operand of_x, const Tensor& weight,
                     Float8Of of_weight, const Tensor* bias,
                     const Float8Delay& delay, const AgreeOnScales& agree,
                     std::string_view label);

// gradient[n, k] += dyᵀ·x, for dy[.., n] and x[.., k]: by scales of an earlier
// step, which the delay has of both.
void AccumulateFloat8Gradient(const Tensor& dy, const Tensor& x,
                              const Float8Delay& delay, const Tensor& gradient,
                              std::string_view label);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_
