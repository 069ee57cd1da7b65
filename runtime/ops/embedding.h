// Lookups and re-arrangements between pictures, tokens and tables.

#ifndef TRIREME_RUNTIME_OPS_EMBEDDING_H_
#define TRIREME_RUNTIME_OPS_EMBEDDING_H_

#include "runtime/device/tensor.h"

namespace trireme {

// out[n, h] = table[indices[n], h]; indices int32, in range (CHECKed).
Tensor GatherRows(const Tensor& table, const Tensor& indices);
// table[indices[n]] += rows[n], in order of n; table in the compute type.
void ScatterAddRows(const Tensor& rows, const Tensor& indices,
                    const Tensor& table);

// Sinusoidal embedding of times[b] (fp32; fp64 for fp64): out[b, channels] =
// [cos(t·f), sin(t·f)], f_i = max_period^(−i/(channels/2)), i < channels/2, in
// `dtype`. (models.md calls this the q = 0 form.)
Tensor TimestepEmbedding(const Tensor& times, int64_t channels,
                         double max_period, DType dtype);

// Pictures to tokens and back. x[b, c, H, W] ↔ tokens[b, (H/p)·(W/p), p·p·c]:
// tokens row by row; inside a token (row, column, channel), channel fastest.
Tensor Patchify(const Tensor& x, int64_t patch);
Tensor Unpatchify(const Tensor& tokens, int64_t patch, int64_t channels,
                  int64_t height, int64_t width);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_EMBEDDING_H_
