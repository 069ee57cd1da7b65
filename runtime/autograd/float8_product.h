// A linear layer's product of operands in FP8 (runtime/ops/float8.h), which are
// rounded from what the layer has.

#ifndef TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_
#define TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_

#include <functional>
#include <string_view>

#include "runtime/ops/float8.h"

namespace trireme {

// Makes each scale, in place, the largest of all ranks that have a part of the
// vectors; null where vectors are whole.
using AgreeOnScales = std::function<void(const Tensor& scales)>;

// out[.., n] = x[.., k]·b + bias[n], in x's dtype: b is `weight` transposed,
// [n, k], for Float8Of::kRows, and `weight` itself, [k, n], for kColumns.
// `bias` may be null.
Tensor Float8Product(const Tensor& x, const Tensor& weight, Float8Of of_weight,
                     const Tensor* bias, const AgreeOnScales& agree,
                     std::string_view label);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_FLOAT8_PRODUCT_H_
