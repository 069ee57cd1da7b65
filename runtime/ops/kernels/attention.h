// Kernels of runtime/ops/attention.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_ATTENTION_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// Where packed sequences begin, and where the last one ends: from 0 to the
// number of tokens, never falling.
using SequenceOffsets = std::shared_ptr<const std::vector<int64_t>>;

// Keys [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

struct AttentionProblem {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t heads = 0;      // of queries
  int64_t key_heads = 0;  // each of heads/key_heads successive query heads
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t head_dim = 0;
  double scale = 1;
  bool masked = false;  // keys beyond a sample's count are left out
  // See AttentionMask.
  std::optional<int64_t> diagonal;
  SequenceOffsets query_offsets, key_offsets;
  // What a pass writes (out; the gradients of q, k and v) is in the compute
  // type.
  bool unrounded = false;

  int64_t queries_per_key() const { return heads / key_heads; }

  // Whether queries of a sample differ in the keys that they see.
  bool ranged() const {
    return diagonal.has_value() || query_offsets != nullptr;
  }

  // The keys that a query sees, before the sample's count. Neither end falls
  // from one query to the next.
  KeyRange VisibleKeys(int64_t query) const {
    KeyRange range{0, keys};
    if (query_offsets != nullptr) {
      const auto after =
          std::upper_bound(query_offsets->begin(), query_offsets->end(), query);
      const int64_t sequence = after - query_offsets->begin() - 1;
      range = {(*key_offsets)[sequence], (*key_offsets)[sequence + 1]};
    }
    if (diagonal.has_value()) {
      range.end =
          std::max(range.begin, std::min(range.end, query + *diagonal + 1));
    }
    return range;
  }

  // The scores of one head of one sample that count, before counts of keys.
  int64_t VisiblePairs() const {
    if (!ranged()) return queries * keys;
    int64_t pairs = 0;
    for (int64_t query = 0; query < queries; ++query) {
      const KeyRange range = VisibleKeys(query);
      pairs += range.end - range.begin;
    }
    return pairs;
  }
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
