// Fixed tables of sines and cosines that tell tokens where they lie.

#ifndef TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_
#define TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_

#include <cstdint>
#include <span>

#include "runtime/device/tensor.h"

namespace trireme {

// [tokens, width] in `dtype`, of coordinates (row, column) of each token. The
// first half of the channels encodes the column, the second the row; in each,
// sines then cosines of coordinate·10000^(−4k/width), k < width/4 (Peebles and
// Xie, "Scalable diffusion models with transformers"). `width` is a multiple of
// 4.
Tensor SinCosTable(Device& device, int64_t width,
                   std::span<const double> coordinates, DType dtype);

// One element of such a table, rounded to fp32, of the token at (row, column).
float SinCosElement(int64_t width, double row, double column, int64_t channel);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_
