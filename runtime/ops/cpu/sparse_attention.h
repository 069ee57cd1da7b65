// Spatial sparse attention on the host (runtime/ops/sparse_attention.h).
//
// The compressed branch is dense: blocks of queries against chunks of
// compressed keys, whose probabilities are kept until the block's selection is
// made. The other two are one algorithm over lists of blocks: keys and values
// are gathered block by block, and each block is multiplied with the queries of
// a range that attend to it, all query heads of a key head at once, so that a
// product has many rows. Forward keeps the sums of a short range by the online
// softmax. Backward makes probabilities once for all gradients: a range owns
// its queries' sums and has sums of its own of all keys' gradients, which are
// added up at the end. Ranges do not depend on the number of threads, each
// product has one thread and each sum one order, hence neither do results.

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
