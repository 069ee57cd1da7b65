// Attention in bf16 and fp16 on tensor cores, in tiles whose scores stay on the
// chip (Dao, "FlashAttention-2", 2023).

#ifndef TRIREME_RUNTIME_OPS_CUDA_ATTENTION_FLASH_H_
#define TRIREME_RUNTIME_OPS_CUDA_ATTENTION_FLASH_H_

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

struct AttentionArguments;

// The most channels of a head.
inline constexpr int64_t kMaxFlashHeadDim = 128;

void FlashAttentionForward(Stream& stream, DType dtype,
                           const AttentionArguments& a);
// After AttentionDelta.
void FlashAttentionBackward(Stream& stream, DType dtype,
                            const AttentionArguments& a);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ATTENTION_FLASH_H_
