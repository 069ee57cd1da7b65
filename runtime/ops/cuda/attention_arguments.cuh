// Attention as kernels see it: an AttentionProblem without what only the host
// can hold.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ATTENTION_ARGUMENTS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_ATTENTION_ARGUMENTS_CUH_

#include <cstdint>

#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

// AttentionProblem::VisibleKeys, with offsets in the device's memory.
struct KeyVisibility {
  int64_t keys = 0;
  bool causal = false;
  int64_t diagonal = 0;
  int64_t sequences = 0;  // 0: all tokens are one
  const int64_t* query_offsets = nullptr;
  const int64_t* key_offsets = nullptr;

  __device__ KeyRange Of(int64_t query) const {
    KeyRange range{0, keys};
    if (sequences > 0) {
      // The last sequence that begins at or before the query.
      int64_t low = 0, high = sequences;
      while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (query_offsets[middle] <= query ? low : high) = middle;
      }
      range = {key_offsets[low], key_offsets[low + 1]};
    }
    if (causal) {
      const int64_t end = query + diagonal + 1;
      if (end < range.end) range.end = end;
      if (range.end < range.begin) range.end = range.begin;
    }
    return range;
  }
};

struct AttentionArguments {
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t key_heads = 0;
  int64_t queries_per_key = 1;  // heads that share one of key_heads
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t head_dim = 0;
  double scale = 1;
  bool unrounded = false;
  KeyVisibility visibility;
  AttentionOperands operands;
  AttentionGradients gradients;  // of the backward pass
  const void* delta = nullptr;   // compute type, as log_sum_exp; likewise

  // Of a sample.
  __device__ int64_t KeyCount(int64_t sample) const {
    return operands.key_counts == nullptr ? keys : operands.key_counts[sample];
  }
  __device__ KeyRange VisibleKeys(int64_t sample, int64_t query) const {
    KeyRange range = visibility.Of(query);
    const int64_t count = KeyCount(sample);
    if (count < range.end) range.end = count;
    return range;
  }
  // Queries that see a key, before counts: neither end of what queries see
  // falls from one to the next, so they are a range.
  __device__ KeyRange SeeingQueries(int64_t key) const {
    KeyRange range{0, queries};
    for (int64_t high = queries; range.begin < high;) {
      const int64_t middle = (range.begin + high) / 2;
      if (visibility.Of(middle).end > key) {
        high = middle;
      } else {
        range.begin = middle + 1;
      }
    }
    for (int64_t low = range.begin; low < range.end;) {
      const int64_t middle = (low + range.end) / 2;
      if (visibility.Of(middle).begin > key) {
        range.end = middle;
      } else {
        low = middle + 1;
      }
    }
    return range;
  }
};

// The element of a head of row `row`. Not by the function of that name in
// attention_warps.cuh: through it a kernel of tiles spills registers.
template <typename T>
__device__ T* HeadRow(const AttentionArguments& a, const HeadsPointer& heads,
                      int64_t row, int64_t head) {
  return static_cast<T*>(heads.data) + row * heads.row_stride +
         head * a.head_dim;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ATTENTION_ARGUMENTS_CUH_
