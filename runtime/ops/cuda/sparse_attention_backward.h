// The backward pass of sparse_attention.cuh.

#ifndef TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_BACKWARD_H_
#define TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_BACKWARD_H_

#include <cstdint>

#include "runtime/device/stream.h"
#include "runtime/ops/kernels/sparse_attention.h"

namespace trireme {

// As the members of SparseAttentionKernels.
int64_t SparseAttentionBackwardBytes(const SparseAttentionProblem& problem,
                                     const SparseAttentionOperands& operands,
                                     const SparseAttentionGradients& gradients);
void SparseAttentionBackwardPass(Stream& stream,
                                 const SparseAttentionProblem& problem,
                                 const SparseAttentionOperands& operands,
                                 const SparseAttentionGradients& gradients,
                                 void* workspace);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_BACKWARD_H_
