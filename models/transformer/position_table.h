// Fixed tables of sines and cosines that tell tokens where they lie.

#ifndef TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_
#define TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_

#include <cstdint>
#include <span>

#include "runtime/device/tensor.h"

namespace trireme {

// [tokens, width] in `dtype`, of `axes` coordinates of each token, as (row,
// column). Each axis has n = ⌊width/(2·axes)⌋ sines, then as many cosines, of
// coordinate·10000^(−k/n), k < n; the last axis has the first channels (Peebles
// and Xie, "Scalable diffusion models with transformers"). Channels that are
// left over are 0.
Tensor SinCosTable(Device& device, int64_t width, int axes,
                   std::span<const double> coordinates, DType dtype);

// One element of such a table, rounded to fp32, of the token at `coordinates`.
float SinCosElement(int64_t width, std::span<const double> coordinates,
                    int64_t channel);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_POSITION_TABLE_H_
