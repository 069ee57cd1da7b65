// Spatial sparse attention (runtime/ops/sparse_attention.h) on GPUs. The branch
// of compressed keys is attention of the ordinary kind. In the other two a warp
// has a query of one head, or a key, and goes through lists: of the blocks that
// a query attends to, and of the queries that attend to a block.

#ifndef TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_CUH_

#include <cstdint>

#include "runtime/ops/cuda/attention_warps.cuh"
#include "runtime/ops/kernels/sparse_attention.h"

namespace trireme {

// The blocks that a query attends to in a branch, until one is below 0, and
// the places of tokens, block by block.
struct BlockList {
  const int32_t* blocks;
  int64_t length;
  const int32_t* offsets;  // of blocks in `order`
  const int32_t* order;
};

template <typename C>
__device__ C SigmoidOf(C x) {
  return C(1) / (C(1) + Exp(-x));
}

struct SparseArguments {
  SparseAttentionProblem p;
  SparseAttentionOperands operands;
  int64_t queries_per_key;

  SparseArguments(const SparseAttentionProblem& problem,
                  const SparseAttentionOperands& of)
      : p(problem), operands(of), queries_per_key(problem.queries_per_key()) {}

  // The large block of a sample's token; −1: padding.
  __device__ int32_t LargeBlockOf(int64_t sample, int64_t token) const {
    return token < p.block_tokens
               ? operands.large.of_token[sample * p.block_tokens + token]
               : -1;
  }
  // Whether a query is no padding.
  __device__ bool IsReal(int64_t sample, int64_t query) const {
    return LargeBlockOf(sample, p.first_query + query) >= 0;
  }
  __device__ BlockList ListOf(SparseBranch branch, int64_t sample,
                              int64_t key_head, int64_t query) const {
    const TokenBlocksPointer& blocks =
        branch == kWindowBranch ? operands.windows : operands.large;
    const int64_t first = sample * p.block_tokens;
    BlockList list;
    list.offsets = blocks.offsets + sample * (blocks.most + 1);
    list.order = blocks.order + first;
    if (branch == kWindowBranch) {
      list.blocks = blocks.of_token + first + p.first_query + query;
      list.length = 1;
    } else {
      list.blocks =
          operands.selected +
          ((sample * p.key_heads + key_head) * p.queries + query) * p.top_k;
      list.length = p.top_k;
    }
    return list;
  }
  // Of a branch's output.
  template <typename T>
  __device__ T* PartRow(SparseBranch branch, int64_t row, int64_t head) const {
    const int64_t width = p.heads * p.head_dim;
    return static_cast<T*>(operands.parts) +
           (branch * p.batch * p.queries + row) * width + head * p.head_dim;
  }
  template <typename C>
  __device__ C* LogSumExps(SparseBranch branch) const {
    return static_cast<C*>(operands.log_sum_exp) +
           branch * p.batch * p.heads * p.queries;
  }
  template <typename T>
  __device__ ComputeType<T> Gate(int64_t row, int branch) const {
    return SigmoidOf(Widen(
        static_cast<const T*>(operands.gates)[row * kSparseBranches + branch]));
  }
};

// The compressed branch as attention of the ordinary kind.
inline AttentionProblem CompressedProblem(const SparseAttentionProblem& p) {
  AttentionProblem problem;
  problem.dtype = p.dtype;
  problem.batch = p.batch;
  problem.heads = p.heads;
  problem.key_heads = p.key_heads;
  problem.queries = p.queries;
  problem.keys = p.most_small;
  problem.head_dim = p.head_dim;
  problem.scale = p.scale;
  problem.masked = true;
  return problem;
}
inline AttentionOperands CompressedOperands(
    const SparseAttentionProblem& p, const SparseAttentionOperands& operands) {
  return {operands.q,
          operands.compressed_k,
          operands.compressed_v,
          operands.small_counts,
          {operands.parts, p.heads * p.head_dim},
          operands.log_sum_exp};
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_SPARSE_ATTENTION_CUH_
