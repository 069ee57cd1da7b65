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

#include "runtime/core/dtype.h"

namespace trireme {

inline constexpr int64_t kAttentionBlockBytes = int64_t{768} << 10;

struct AttentionProblem {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t head_dim = 0;
  double scale = 1;
  bool masked = false;  // keys beyond a sample's count are left out
  // What a pass writes (out; the gradients of q, k and v) is in the compute
  // type.
  bool unrounded = false;
  int threads = 1;
  int64_t block_bytes = kAttentionBlockBytes;
};

// Element (sample, token, head, channel) lies at
// (sample·tokens + token)·row_stride + head·head_dim + channel.
struct HeadsPointer {
  void* data = nullptr;
  int64_t row_stride = 0;
};

// The forward pass writes `out` and `log_sum_exp`; the backward pass reads all.
struct AttentionOperands {
  HeadsPointer q, k, v;
  const int32_t* key_counts = nullptr;  // [batch] if masked
  HeadsPointer out;
  void* log_sum_exp = nullptr;  // [batch, heads, queries], compute type
};

struct AttentionGradients {
  HeadsPointer out, q, k, v;
};

// Bytes of a pass's workspace, aligned to Device::kAlignment. Of the operands
// only the row strides are read.
int64_t AttentionForwardWorkspace(const AttentionProblem& problem,
                                  const AttentionOperands& operands);
void AttentionForwardCpu(const AttentionProblem& problem,
                         const AttentionOperands& operands, void* workspace);

int64_t AttentionBackwardWorkspace(const AttentionProblem& problem,
                                   const AttentionOperands& operands,
                                   const AttentionGradients& gradients);
void AttentionBackwardCpu(const AttentionProblem& problem,
                          const AttentionOperands& operands,
                          const AttentionGradients& gradients, void* workspace);

// out[batch, tokens, heads, head_dim] and log_sum_exp[batch, heads, tokens] of
// the compute type.
struct AttentionMergeArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t tokens = 0;
  int64_t head_dim = 0;
  const void* part_out = nullptr;
  const void* part_log_sum_exp = nullptr;
  void* out = nullptr;
  void* log_sum_exp = nullptr;
};

void MergeAttentionCpu(const AttentionMergeArguments& arguments);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ATTENTION_H_
