// What the threads of a warp or a block find together. Orders are fixed by the
// shapes, so results are the same bits every time.

#ifndef TRIREME_RUNTIME_OPS_CUDA_BLOCKS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_BLOCKS_CUH_

#include <cstdint>

#include "runtime/device/cuda/kernel.cuh"

namespace trireme {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

struct Plus {
  template <typename C>
  __device__ C operator()(C a, C b) const {
    return a + b;
  }
};

// The higher one, or NaN if any is NaN.
struct Higher {
  template <typename C>
  __device__ C operator()(C a, C b) const {
    return b > a || b != b ? b : a;
  }
};

// All lanes' values combined, in all lanes.
template <typename Combine, typename C>
__device__ inline C CombineWarp(C value, Combine combine) {
  UNROLL
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

template <typename C>
__device__ inline C WarpSum(C value) {
  return CombineWarp(value, Plus());
}

// All threads' values combined, in all threads of a block of kThreads. The
// barriers let the same scratch be used again.
template <int kThreads, typename C, typename Combine>
__device__ inline C CombineBlock(C value, Combine combine) {
  constexpr int kWarps = kThreads / kWarpThreads;
  static_assert(kThreads % kWarpThreads == 0);
  KERNEL_SHARED(of_warps, C[kWarps]);
  value = CombineWarp(value, combine);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  if (threadIdx.x % kWarpThreads == 0) of_warps[warp] = value;
  __syncthreads();
  value = of_warps[0];
  UNROLL
  for (int i = 1; i < kWarps; ++i) value = combine(value, of_warps[i]);
  __syncthreads();
  return value;
}

template <int kThreads, typename C>
__device__ inline C BlockSum(C value) {
  return CombineBlock<kThreads>(value, Plus());
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_BLOCKS_CUH_
