// Attention for every floating type and head dimension, without tensor cores: a
// warp for each query, and for each key in the backward pass.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ATTENTION_PLAIN_H_
#define TRIREME_RUNTIME_OPS_CUDA_ATTENTION_PLAIN_H_

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

struct AttentionArguments;

// Checks the counts of keys, if there are any, where kernels can see them.
void CheckKeyCounts(Stream& stream, const AttentionArguments& a);

void PlainAttentionForward(Stream& stream, DType dtype,
                           const AttentionArguments& a);
void PlainAttentionBackward(Stream& stream, DType dtype,
                            const AttentionArguments& a);
// delta[b, head, query] = Σ over channels of dout·out, in the compute type.
void AttentionDelta(Stream& stream, DType dtype, const AttentionArguments& a,
                    void* delta);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ATTENTION_PLAIN_H_
