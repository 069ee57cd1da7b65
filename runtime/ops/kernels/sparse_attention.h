// Kernels of runtime/ops/sparse_attention.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_SPARSE_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_SPARSE_ATTENTION_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
#include "runtime/ops/kernels/attention.h"
#include "runtime/ops/kernels/spatial_blocks.h"

namespace trireme {

// What a token's output is a sum of, in the order of its gates.
enum SparseBranch { kCompressedBranch, kSelectedBranch, kWindowBranch };
inline constexpr int64_t kSparseBranches = 3;

struct SparseAttentionProblem {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t heads = 0;         // of queries
  int64_t key_heads = 0;     // each of heads/key_heads successive query heads
  int64_t queries = 0;       // of a sample, on this rank
  int64_t first_query = 0;   // their place among the tokens
  int64_t keys = 0;          // of a sample; at least the blocks' tokens
  int64_t block_tokens = 0;  // tokens that may have blocks, a sample
  int64_t head_dim = 0;
  int64_t top_k = 0;
  double scale = 1;
  // The most blocks of each kind that a sample may have.
  int64_t most_small = 0, most_large = 0, most_windows = 0;

  int64_t queries_per_key() const { return heads / key_heads; }
};

// The forward pass writes `parts`, `log_sum_exp`, `selected` and `out`; the
// backward pass reads all of them but `out`.
struct SparseAttentionOperands {
  HeadsPointer q, k, v, compressed_k, compressed_v;
  const void* gates = nullptr;  // [batch, queries, branches], before sigmoids
  const int32_t* small_counts = nullptr;    // [batch]
  const int32_t* large_of_small = nullptr;  // [batch, most_small]
  TokenBlocksPointer large, windows;
  void* parts = nullptr;        // [branches, batch, queries, heads, head_dim]
  void* log_sum_exp = nullptr;  // [branches, batch, heads, queries], compute
  int32_t* selected = nullptr;  // [batch, key_heads, queries, top_k]
  void* out = nullptr;          // [batch, queries, heads, head_dim]
};

struct SparseAttentionGradients {
  const void* out = nullptr;  // as the operands'
  HeadsPointer q, k, v, compressed_k, compressed_v;
  void* gates = nullptr;
};

struct SparseAttentionKernels {
  // Bytes of a pass's workspace. Of the operands only the row strides are read.
  int64_t (*forward_workspace)(const SparseAttentionProblem&,
                               const SparseAttentionOperands&);
  void (*forward)(Stream&, const SparseAttentionProblem&,
                  const SparseAttentionOperands&, void* workspace);
  int64_t (*backward_workspace)(const SparseAttentionProblem&,
                                const SparseAttentionOperands&,
                                const SparseAttentionGradients&);
  void (*backward)(Stream&, const SparseAttentionProblem&,
                   const SparseAttentionOperands&,
                   const SparseAttentionGradients&, void* workspace);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_SPARSE_ATTENTION_H_
