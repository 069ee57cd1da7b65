// Blocked attention on the host: for each (sample, head), blocks of queries
// against blocks of keys, small matrix products (PreparedGemm, one thread each)
// with the softmax loops between them. (sample, head) pairs run in parallel.
//
// A block of scores has at most kAttentionBlockBytes, so that it stays in the
// L2 cache whatever the sequence. Blocks do not depend on the number of
// threads, hence neither do results.

#ifndef TRIREME_RUNTIME_OPS_CPU_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_CPU_ATTENTION_H_

#include <cstdint>

#include "runtime/ops/kernels/attention.h"

namespace trireme {

inline constexpr int64_t kAttentionBlockBytes = int64_t{768} << 10;

struct CpuAttentionProblem : AttentionProblem {
  int threads = 1;
  int64_t block_bytes = kAttentionBlockBytes;
};

// Bytes of a pass's workspace, aligned to Arena::kAlignment. Of the operands
// only the row strides are read.
int64_t AttentionForwardWorkspace(const CpuAttentionProblem& problem,
                                  const AttentionOperands& operands);
void AttentionForwardCpu(const CpuAttentionProblem& problem,
                         const AttentionOperands& operands, void* workspace);

int64_t AttentionBackwardWorkspace(const CpuAttentionProblem& problem,
                                   const AttentionOperands& operands,
                                   const AttentionGradients& gradients);
void AttentionBackwardCpu(const CpuAttentionProblem& problem,
                          const AttentionOperands& operands,
                          const AttentionGradients& gradients, void* workspace);

void MergeAttentionCpu(const AttentionMergeArguments& arguments);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ATTENTION_H_
