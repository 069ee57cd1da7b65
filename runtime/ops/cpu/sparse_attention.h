// Spatial sparse attention on the host (runtime/ops/sparse_attention.h).
//
// The compressed branch is dense: blocks of queries against chunks of
// compressed keys, whose probabilities are kept until the block's selection is
// made. The other two are one algorithm over lists of blocks: keys and values
// are gathered block by block, and each token's queries of a key head, which
// see the same blocks, are multiplied with one block after the other. Backward
// does so once more for the queries' gradients; those of a block's keys are
// made of all queries whose lists have it. Each product has one thread and each
// sum one order, so that results do not depend on the number of threads.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_H_

#include <cstdint>

#include "runtime/ops/kernels/sparse_attention.h"

namespace trireme {

// Bytes of a pass's workspace. Of the operands only the row strides are read.
int64_t SparseAttentionForwardWorkspace(const SparseAttentionProblem& problem,
                                        const SparseAttentionOperands& operands,
                                        int threads);
void SparseAttentionForwardCpu(const SparseAttentionProblem& problem,
                               const SparseAttentionOperands& operands,
                               int threads, void* workspace);

int64_t SparseAttentionBackwardWorkspace(
    const SparseAttentionProblem& problem,
    const SparseAttentionOperands& operands,
    const SparseAttentionGradients& gradients, int threads);
void SparseAttentionBackwardCpu(const SparseAttentionProblem& problem,
                                const SparseAttentionOperands& operands,
                                const SparseAttentionGradients& gradients,
                                int threads, void* workspace);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_H_
