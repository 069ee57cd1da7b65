// Attention in bf16 by the processor's dot product of bf16 pairs: what
// attention.h says, with operands packed once for a head, scores of a few
// queries at a time, and the next head on its way into the cache meanwhile.

#ifndef TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_H_

#include <cstdint>

#include "runtime/ops/cpu/attention.h"

namespace trireme {

// Whether this processor, and the kernel, are made for the problem: as many
// heads of keys as of queries, whose keys differ by counts alone.
bool HasBFloat16Attention(const CpuAttentionProblem& problem);

int64_t BFloat16AttentionForwardWorkspace(const CpuAttentionProblem& problem);
void BFloat16AttentionForward(const CpuAttentionProblem& problem,
                              const AttentionOperands& operands,
                              void* workspace);

int64_t BFloat16AttentionBackwardWorkspace(const CpuAttentionProblem& problem);
void BFloat16AttentionBackward(const CpuAttentionProblem& problem,
                               const AttentionOperands& operands,
                               const AttentionGradients& gradients,
                               void* workspace);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_H_
