// Operands of matrix products in FP8 E4M3 (Micikevicius et al., "FP8 formats
// for deep learning"), one scale for each vector that a product sums over: a
// row of a in a·bᵀ, a row of b. Products of them are MatMulFloat8 (matmul.h).
//
// Scales are powers of two. What a code stands for, code·scale, is therefore
// exact in bf16 and fp32, so that every device multiplies the same numbers,
// with tensor cores for FP8 or without; and the scale of a vector that lies on
// several ranks is the largest of their parts' scales.
//
// Or one scale for all vectors of a matrix, from what earlier ones needed.

#ifndef TRIREME_RUNTIME_OPS_FLOAT8_H_
#define TRIREME_RUNTIME_OPS_FLOAT8_H_

#include <string_view>

#include "runtime/device/tensor.h"
#include "runtime/ops/quantization.h"

namespace trireme {

// Which vectors of a matrix have a scale each.
enum class Float8Of { kRows, kColumns };

// scales[vectors], fp32 = the smallest power of two s, at least 2^-126, with
// |x| <= 448 s for all x of the vector; 0 for zeros, infinity where x is
// infinite or NaN. Leading dims of the matrix are folded into rows.
void Float8Scales(const Tensor& matrix, Float8Of of, const Tensor& scales);

// The vectors as rows of codes, to nearest even, with these scales, which are
// at least their own; a vector whose scale is infinite is NaN. Codes are
// workspace; `scales` is kept, not copied.
QuantizedTensor ToFloat8(const Tensor& matrix, Float8Of of,
                         const Tensor& scales, std::string_view label);

// The same where all vectors have one scale[1], which was there before: what is
// beyond its reach becomes the largest number (it saturates), what is not
// finite NaN. needed[1], fp32, becomes the least power of two, as above, that
// would have reached all of the matrix and of what it was raised by before.
QuantizedTensor ToFloat8Whole(const Tensor& matrix, Float8Of of,
                              const Tensor& scale, const Tensor& needed,
                              std::string_view label);
// Raises needed[1] alone.
void RaiseFloat8Needed(const Tensor& matrix, const Tensor& needed);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_FLOAT8_H_
