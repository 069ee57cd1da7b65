#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/heads_norm.h"
#include "runtime/ops/cuda/pairs.cuh"

namespace trireme {
namespace {

// A warp for each head of each row; its lanes take pairs of channels.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpThreads;

// The head of a warp, of all rows and heads.
__device__ int64_t WarpHead() {
  return static_cast<int64_t>(blockIdx.x) * kWarps +
         static_cast<int>(threadIdx.x) / kWarpThreads;
}

__device__ int64_t PlaceOf(const HeadsNormArguments& a,
                           const HeadsLayout& layout, int64_t row,
                           int64_t head) {
  return layout.offset + row * layout.row_stride + head * a.head_dim;
}

// Calls f(pair) for a lane's pairs of channels.
template <typename F>
__device__ void ForPairs(int64_t head_dim, F&& f) {
  for (int64_t i = threadIdx.x % kWarpThreads; 2 * i < head_dim;
       i += kWarpThreads) {
    f(i);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    HeadsForwardKernel(const __grid_constant__ HeadsNormArguments a, T* out,
                       const HeadsLayout out_layout) {
  using C = ComputeType<T>;
  const int64_t index = WarpHead();
  if (index >= a.batch * a.tokens * a.heads) return;
  const int64_t row = index / a.heads;
  const int64_t head = index % a.heads;
  const int64_t n = a.head_dim;
  const T* x = static_cast<const T*>(a.x) + PlaceOf(a, a.x_layout, row, head);
  const T* weight = static_cast<const T*>(a.weight);
  T* const y = out + PlaceOf(a, out_layout, row, head);
  C rstd = 1;
  if (weight != nullptr) {
    C squares = 0;
    ForPairs(n, [&](int64_t i) {
      const Pair<C> v = LoadPair(x, i, n);
      squares = MultiplyAdd(v.even, v.even, squares);
      squares = MultiplyAdd(v.odd, v.odd, squares);
    });
    squares = WarpSum(squares);
    rstd =
        C(1) / SquareRoot(squares / static_cast<C>(n) + static_cast<C>(a.eps));
    if (threadIdx.x % kWarpThreads == 0) static_cast<C*>(a.rstd)[index] = rstd;
  }
  ForPairs(n, [&](int64_t i) {
    Pair<C> v = LoadPair(x, i, n);
    if (weight != nullptr) {
      const Pair<C> factor = LoadPair(weight, i, n);
      v = {v.even * rstd * factor.even, v.odd * rstd * factor.odd};
    }
    StorePair(Rotated<false>(a, row, i, v), y, i, n);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    HeadsBackwardKernel(const __grid_constant__ HeadsNormArguments a,
                        const T* dy, const HeadsLayout dy_layout, T* dx,
                        const HeadsLayout dx_layout) {
  using C = ComputeType<T>;
  const int64_t index = WarpHead();
  if (index >= a.batch * a.tokens * a.heads) return;
  const int64_t row = index / a.heads;
  const int64_t head = index % a.heads;
  const int64_t n = a.head_dim;
  const T* slope = dy + PlaceOf(a, dy_layout, row, head);
  T* const gradient = dx + PlaceOf(a, dx_layout, row, head);
  const T* weight = static_cast<const T*>(a.weight);
  if (weight == nullptr) {
    ForPairs(n, [&](int64_t i) {
      StorePair(Rotated<true>(a, row, i, LoadPair(slope, i, n)), gradient, i,
                n);
    });
    return;
  }
  const T* x = static_cast<const T*>(a.x) + PlaceOf(a, a.x_layout, row, head);
  const C rstd = static_cast<const C*>(a.rstd)[index];
  // The gradient of the normed pair.
  const auto of_normed = [&](int64_t i) {
    const Pair<C> turned = Rotated<true>(a, row, i, LoadPair(slope, i, n));
    const Pair<C> factor = LoadPair(weight, i, n);
    return Pair<C>{turned.even * factor.even, turned.odd * factor.odd};
  };
  C dots = 0;
  ForPairs(n, [&](int64_t i) {
    const Pair<C> v = LoadPair(x, i, n);
    const Pair<C> s = of_normed(i);
    dots = MultiplyAdd(s.even, v.even, dots);
    dots = MultiplyAdd(s.odd, v.odd, dots);
  });
  const C dot_mean = rstd / static_cast<C>(n) * WarpSum(dots);
  ForPairs(n, [&](int64_t i) {
    const Pair<C> v = LoadPair(x, i, n);
    const Pair<C> s = of_normed(i);
    StorePair(Pair<C>{MultiplyAdd(-(v.even * rstd), dot_mean, s.even) * rstd,
                      MultiplyAdd(-(v.odd * rstd), dot_mean, s.odd) * rstd},
              gradient, i, n);
  });
}

// The weight's gradient of a block of kNormBlockRows rows: each warp sums rows
// and heads by turns, then warps are added in order.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    WeightSumsKernel(const __grid_constant__ HeadsNormArguments a, const T* dy,
                     const HeadsLayout dy_layout,
                     ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  KERNEL_SHARED(of_warps, Pair<C>[kWarps][kWarpThreads]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t n = a.head_dim;
  const int64_t block = blockIdx.x;
  const int64_t i = static_cast<int64_t>(blockIdx.y) * kWarpThreads + lane;
  const int64_t first = block * kNormBlockRows;
  const int64_t rest = a.batch * a.tokens - first;
  const int64_t rows = rest < kNormBlockRows ? rest : kNormBlockRows;
  Pair<C> sums = {0, 0};
  for (int64_t at = warp; 2 * i < n && at < rows * a.heads; at += kWarps) {
    const int64_t row = first + at / a.heads;
    const int64_t head = at % a.heads;
    const Pair<C> v = LoadPair(
        static_cast<const T*>(a.x) + PlaceOf(a, a.x_layout, row, head), i, n);
    const Pair<C> turned = Rotated<true>(
        a, row, i, LoadPair(dy + PlaceOf(a, dy_layout, row, head), i, n));
    const C rstd = static_cast<const C*>(a.rstd)[row * a.heads + head];
    sums = {MultiplyAdd(turned.even, v.even * rstd, sums.even),
            MultiplyAdd(turned.odd, v.odd * rstd, sums.odd)};
  }
  of_warps[warp][lane] = sums;
  __syncthreads();
  if (warp != 0 || 2 * i >= n) return;
  for (int w = 1; w < kWarps; ++w) {
    sums.even += of_warps[w][lane].even;
    sums.odd += of_warps[w][lane].odd;
  }
  StorePair(sums, partial_sums + block * n, i, n);
}

}  // namespace

void CudaHeadsNormForward(Stream& stream, const HeadsNormArguments& a,
                          void* out, const HeadsLayout& out_layout) {
  const int64_t heads = a.batch * a.tokens * a.heads;
  if (heads == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(heads, kWarps), kThreads, 0, Handle(stream)},
           HeadsForwardKernel<T>, a, static_cast<T*>(out), out_layout);
  });
}

void CudaHeadsNormBackward(Stream& stream, const HeadsNormArguments& a,
                           const void* dy, const HeadsLayout& dy_layout,
                           void* dx, const HeadsLayout& dx_layout,
                           void* partial_sums) {
  const int64_t heads = a.batch * a.tokens * a.heads;
  if (heads == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    // First, as dx may take the place of dy.
    if (partial_sums != nullptr) {
      constexpr int64_t kChannels = 2 * kWarpThreads;
      dim3 grid = GridFor(NormBlocksPerGroup(a.batch * a.tokens), 1);
      grid.y = static_cast<unsigned>((a.head_dim + kChannels - 1) / kChannels);
      Launch({grid, kThreads, 0, Handle(stream)}, WeightSumsKernel<T>, a,
             static_cast<const T*>(dy), dy_layout,
             static_cast<ComputeType<T>*>(partial_sums));
    }
    Launch({GridFor(heads, kWarps), kThreads, 0, Handle(stream)},
           HeadsBackwardKernel<T>, a, static_cast<const T*>(dy), dy_layout,
           static_cast<T*>(dx), dx_layout);
  });
}

}  // namespace trireme
