// Pairs of a row's channels (2i, 2i + 1), which rotary embeddings turn
// together.

#ifndef TRIREME_RUNTIME_OPS_CUDA_PAIRS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_PAIRS_CUH_

#include <cstdint>

#include "runtime/ops/cuda/elements.cuh"

namespace trireme {

template <typename C>
struct Pair {
  C even;
  C odd;
};

// Pair i of n channels; where n is odd, the last one has a zero.
template <typename T>
__device__ Pair<ComputeType<T>> LoadPair(const T* from, int64_t i, int64_t n) {
  const auto pack = LoadPack<2>(from + 2 * i, n - 2 * i);
  return {pack[0], pack[1]};
}

template <typename T>
__device__ void StorePair(const Pair<ComputeType<T>>& x, T* to, int64_t i,
                          int64_t n) {
  StorePack(Pack<ComputeType<T>, 2>{{x.even, x.odd}}, to + 2 * i, n - 2 * i);
}

// Turned by the angle of a head's pair i of a row's token, if there are angles;
// kInverse: turned back. Arguments are a norm's of heads.
template <bool kInverse, typename Arguments, typename C>
__device__ Pair<C> Rotated(const Arguments& a, int64_t row, int64_t i,
                           const Pair<C>& x) {
  if (a.cos == nullptr || 2 * i + 1 >= a.head_dim) return x;
  const int64_t at = row % a.tokens * (a.head_dim / 2) + i;
  const C cos = static_cast<const C*>(a.cos)[at];
  const C sin = static_cast<const C*>(a.sin)[at];
  if constexpr (kInverse) {
    return {MultiplyAdd(x.even, cos, x.odd * sin),
            MultiplyAdd(x.odd, cos, -(x.even * sin))};
  } else {
    return {MultiplyAdd(x.even, cos, -(x.odd * sin)),
            MultiplyAdd(x.odd, cos, x.even * sin)};
  }
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_PAIRS_CUH_
