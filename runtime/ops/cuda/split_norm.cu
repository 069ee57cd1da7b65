#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/pairs.cuh"

namespace trireme {
namespace {

// Threads of one row.
constexpr int kThreads = 128;

template <typename T>
__device__ const T* RowOf(const void* first, const HeadsLayout& layout,
                          int64_t row) {
  return static_cast<const T*>(first) + layout.offset + row * layout.row_stride;
}

template <typename T>
__device__ T* RowOf(void* first, const HeadsLayout& layout, int64_t row) {
  return static_cast<T*>(first) + layout.offset + row * layout.row_stride;
}

// Calls f(i) for a thread's pairs of the row's columns.
template <typename F>
__device__ void ForPairs(int64_t columns, F&& f) {
  for (int64_t i = threadIdx.x; 2 * i < columns; i += kThreads) f(i);
}

__device__ double InverseRms(const SplitNormArguments& a, int64_t row) {
  return 1.0 /
         SquareRoot(a.squares[row] / static_cast<double>(a.width) + a.eps);
}

// Pair i of all heads' columns, turned by its own head's angle.
template <bool kInverse, typename C>
__device__ Pair<C> Turned(const SplitNormArguments& a, int64_t row, int64_t i,
                          const Pair<C>& x) {
  if (a.cos == nullptr) return x;
  return Rotated<kInverse>(a, row, i % (a.head_dim / 2), x);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SquaresKernel(const __grid_constant__ SplitNormArguments a,
                  double* squares) {
  const int64_t row = blockIdx.x;
  const T* const x = RowOf<T>(a.x, a.x_layout, row);
  double sum = 0;
  ForPairs(a.columns, [&](int64_t i) {
    const auto v = LoadPair(x, i, a.columns);
    const double even = v.even, odd = v.odd;
    sum = MultiplyAdd(even, even, MultiplyAdd(odd, odd, sum));
  });
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) squares[row] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const __grid_constant__ SplitNormArguments a, void* y,
                  const HeadsLayout y_layout) {
  using C = ComputeType<T>;
  const int64_t row = blockIdx.x;
  const T* const x = RowOf<T>(a.x, a.x_layout, row);
  T* const out = RowOf<T>(y, y_layout, row);
  const auto rms = static_cast<C>(InverseRms(a, row));
  ForPairs(a.columns, [&](int64_t i) {
    const Pair<C> v = LoadPair(x, i, a.columns);
    const Pair<C> factor =
        LoadPair(static_cast<const T*>(a.weight), i, a.columns);
    const Pair<C> normed = {v.even * rms * factor.even,
                            v.odd * rms * factor.odd};
    StorePair(Turned<false>(a, row, i, normed), out, i, a.columns);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DotsKernel(const __grid_constant__ SplitNormArguments a, const void* dy,
               const HeadsLayout dy_layout, double* dots) {
  const int64_t row = blockIdx.x;
  const T* const x = RowOf<T>(a.x, a.x_layout, row);
  const T* const slopes = RowOf<T>(dy, dy_layout, row);
  double sum = 0;
  ForPairs(a.columns, [&](int64_t i) {
    const auto v = LoadPair(x, i, a.columns);
    const auto factor = LoadPair(static_cast<const T*>(a.weight), i, a.columns);
    const auto slope = Turned<true>(a, row, i, LoadPair(slopes, i, a.columns));
    sum += static_cast<double>(v.even) * factor.even * slope.even;
    sum += static_cast<double>(v.odd) * factor.odd * slope.odd;
  });
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) dots[row] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const __grid_constant__ SplitNormArguments a, const void* dy,
                   const HeadsLayout dy_layout, const double* dots, void* dx,
                   const HeadsLayout dx_layout) {
  using C = ComputeType<T>;
  const int64_t row = blockIdx.x;
  const T* const x = RowOf<T>(a.x, a.x_layout, row);
  const T* const slopes = RowOf<T>(dy, dy_layout, row);
  T* const out = RowOf<T>(dx, dx_layout, row);
  const double inverse = InverseRms(a, row);
  const auto rms = static_cast<C>(inverse);
  const auto along = static_cast<C>(inverse * inverse * inverse * dots[row] /
                                    static_cast<double>(a.width));
  ForPairs(a.columns, [&](int64_t i) {
    const Pair<C> v = LoadPair(x, i, a.columns);
    const Pair<C> factor =
        LoadPair(static_cast<const T*>(a.weight), i, a.columns);
    const Pair<C> slope =
        Turned<true>(a, row, i, LoadPair(slopes, i, a.columns));
    StorePair(Pair<C>{rms * factor.even * slope.even - along * v.even,
                      rms * factor.odd * slope.odd - along * v.odd},
              out, i, a.columns);
  });
}

// A lane for each pair of columns; warps take rows by turns and are added in
// order.
constexpr int kRowWarps = 16;

template <typename T>
__global__ void __launch_bounds__(kRowWarps* kWarpThreads)
    WeightGradientKernel(const __grid_constant__ SplitNormArguments a,
                         const void* dy, const HeadsLayout dy_layout,
                         ComputeType<T>* gradient) {
  using C = ComputeType<T>;
  KERNEL_SHARED(of_warps, Pair<double>[kRowWarps][kWarpThreads]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarpThreads + lane;
  const bool inside = 2 * i < a.columns;
  Pair<double> sums = {0, 0};
  for (int64_t row = warp; inside && row < a.rows; row += kRowWarps) {
    const Pair<C> v = LoadPair(RowOf<T>(a.x, a.x_layout, row), i, a.columns);
    const Pair<C> slope = Turned<true>(
        a, row, i, LoadPair(RowOf<T>(dy, dy_layout, row), i, a.columns));
    const double rms = InverseRms(a, row);
    sums.even += static_cast<double>(v.even) * rms * slope.even;
    sums.odd += static_cast<double>(v.odd) * rms * slope.odd;
  }
  of_warps[warp][lane] = sums;
  __syncthreads();
  if (warp != 0 || !inside) return;
  for (int w = 1; w < kRowWarps; ++w) {
    sums.even += of_warps[w][lane].even;
    sums.odd += of_warps[w][lane].odd;
  }
  const Pair<C> before = LoadPair(gradient, i, a.columns);
  StorePair(Pair<C>{before.even + static_cast<C>(sums.even),
                    before.odd + static_cast<C>(sums.odd)},
            gradient, i, a.columns);
}

LaunchConfig ForRows(Stream& stream, const SplitNormArguments& a) {
  return {GridFor(a.rows, 1), kThreads, 0, Handle(stream)};
}

void Squares(Stream& stream, const SplitNormArguments& a, double* squares) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a), SquaresKernel<T>, a, squares);
  });
}

void Forward(Stream& stream, const SplitNormArguments& a, void* y,
             const HeadsLayout& y_layout) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a), ForwardKernel<T>, a, y, y_layout);
  });
}

void Dots(Stream& stream, const SplitNormArguments& a, const void* dy,
          const HeadsLayout& dy_layout, double* dots) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a), DotsKernel<T>, a, dy, dy_layout, dots);
  });
}

void Backward(Stream& stream, const SplitNormArguments& a, const void* dy,
              const HeadsLayout& dy_layout, const double* dots, void* dx,
              const HeadsLayout& dx_layout) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a), BackwardKernel<T>, a, dy, dy_layout, dots, dx,
           dx_layout);
  });
}

void WeightGradient(Stream& stream, const SplitNormArguments& a, const void* dy,
                    const HeadsLayout& dy_layout, void* gradient) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(a.columns, 2 * kWarpThreads), kRowWarps * kWarpThreads, 0,
            Handle(stream)},
           WeightGradientKernel<T>, a, dy, dy_layout,
           static_cast<ComputeType<T>*>(gradient));
  });
}

}  // namespace

SplitNormKernels CudaSplitNorms() {
  return {.squares = Squares,
          .forward = Forward,
          .dots = Dots,
          .backward = Backward,
          .weight_gradient = WeightGradient};
}

}  // namespace trireme
