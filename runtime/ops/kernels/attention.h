// Kernels of runtime/ops/attention.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_ATTENTION_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

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

struct AttentionKernels {
  // Bytes of a pass's workspace. Of the operands only the row strides are read.
  int64_t (*forward_workspace)(const AttentionProblem&,
                               const AttentionOperands&);
  void (*forward)(Stream&, const AttentionProblem&, const AttentionOperands&,
                  void* workspace);
  int64_t (*backward_workspace)(const AttentionProblem&,
                                const AttentionOperands&,
                                const AttentionGradients&);
  void (*backward)(Stream&, const AttentionProblem&, const AttentionOperands&,
                   const AttentionGradients&, void* workspace);
  void (*merge)(Stream&, const AttentionMergeArguments&);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_ATTENTION_H_
