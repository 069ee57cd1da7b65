// Attention in bf16 and fp16 by cuDNN's fused kernels: forward as one operation
// of its graphs, backward as the products, sums and exponentials that it knows
// as attention's, in the form that its own frontend asks for where results are
// to be deterministic: the queries' gradient has no sums in memory, to which
// blocks would add in any order. (Engines of the other form say nothing of it
// in cuDNN 9.19: notes alone are no protection.) Where it has no engine for a
// problem, and for masks, unrounded results, and addresses that are no
// multiples of 16 bytes, our own kernels compute. Both keep the same
// log-sum-exps, so that one pass may be cuDNN's and the other ours.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDNN_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDNN_ATTENTION_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

// What one of cuDNN's plans is for.
struct CudnnAttentionProblem {
  bool backward = false;
  DType dtype = DType::kBFloat16;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t key_heads = 0;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t head_dim = 0;
  // Of rows of q, k, v and out, and of the gradients of the four.
  std::array<int64_t, 8> row_strides = {};

  bool operator==(const CudnnAttentionProblem&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const CudnnAttentionProblem& p) {
    return H::combine(std::move(h), p.backward, p.dtype, p.batch, p.heads,
                      p.key_heads, p.queries, p.keys, p.head_dim,
                      p.row_strides);
  }
};

// Whether cuDNN's library, if it is there, has a plan for the problem on GPUs
// whose properties are `json`, as cuDNN writes them; no GPU need be there. The
// error says why not.
absl::Status FindCudnnAttention(const CudnnAttentionProblem& problem,
                                const std::string& json);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDNN_ATTENTION_H_
