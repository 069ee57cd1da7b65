#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/heads_norm.h"

namespace trireme {
namespace {

// Threads of one row.
constexpr int kThreads = 128;

template <typename T>
__device__ const T* RowOf(const void* x, int64_t row, int64_t width) {
  return x == nullptr ? nullptr : static_cast<const T*>(x) + row * width;
}

// Calls f(column) for the packs of a row, by turns.
template <int kSize, typename F>
__device__ void ForRowPacks(int64_t width, F&& f) {
  for (int64_t at = static_cast<int64_t>(threadIdx.x) * kSize; at < width;
       at += static_cast<int64_t>(kThreads) * kSize) {
    f(at);
  }
}

template <typename C>
__device__ C MeanOf(const NormArguments& a, int64_t row) {
  return a.subtract_mean ? static_cast<const C*>(a.mean)[row] : C(0);
}

// The factors of a pack of a normed row.
template <typename T>
__device__ Pack<ComputeType<T>, kPackSize<T>> FactorsAt(const NormArguments& a,
                                                        const T* scale,
                                                        int64_t at) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  if (scale == nullptr) {
    Pack<C, kSize> ones;
    UNROLL
    for (int i = 0; i < kSize; ++i) ones[i] = C(1);
    return ones;
  }
  auto factors = LoadPack<kSize>(scale + at, a.width - at);
  UNROLL
  for (int i = 0; i < kSize; ++i) factors[i] += static_cast<C>(a.scale_offset);
  return factors;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const __grid_constant__ NormArguments a, T* y) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  const int64_t width = a.width;
  const C inverse_width = C(1) / static_cast<C>(width);
  const T* x = RowOf<T>(a.x, row, width);
  C mean = 0;
  if (a.subtract_mean) {
    C sum = 0;
    ForRowPacks<kSize>(width, [&](int64_t at) {
      const auto values = LoadPack<kSize>(x + at, width - at);
      UNROLL
      for (int i = 0; i < kSize; ++i) sum += values[i];
    });
    mean = inverse_width * BlockSum<kThreads>(sum);
  }
  C squares = 0;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto values = LoadPack<kSize>(x + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      const C centred = at + i < width ? values[i] - mean : C(0);
      squares = MultiplyAdd(centred, centred, squares);
    }
  });
  squares = BlockSum<kThreads>(squares);
  const C rstd = C(1) / SquareRoot(MultiplyAdd(inverse_width, squares,
                                               static_cast<C>(a.eps)));
  if (threadIdx.x == 0) {
    if (a.subtract_mean) static_cast<C*>(a.mean)[row] = mean;
    static_cast<C*>(a.rstd)[row] = rstd;
  }
  const int64_t group = row / a.rows_per_group;
  const T* scale = RowOf<T>(a.scale, group, width);
  const T* shift = RowOf<T>(a.shift, group, width);
  ForRowPacks<kSize>(width, [&](int64_t at) {
    auto values = LoadPack<kSize>(x + at, width - at);
    const auto factors = FactorsAt(a, scale, at);
    Pack<C, kSize> shifts = {};
    if (shift != nullptr) shifts = LoadPack<kSize>(shift + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      const C normed = (values[i] - mean) * rstd;
      values[i] = MultiplyAdd(normed, factors[i], shifts[i]);
    }
    StorePack(values, y + row * width + at, width - at);
  });
}

void Forward(Stream& stream, const NormArguments& a, void* y) {
  const int64_t rows = a.groups * a.rows_per_group;
  if (rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)}, ForwardKernel<T>, a,
           static_cast<T*>(y));
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const __grid_constant__ NormArguments a, const T* dy,
                   const T* add, T* dx) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  const int64_t width = a.width;
  const T* x = RowOf<T>(a.x, row, width);
  const T* scale = RowOf<T>(a.scale, row / a.rows_per_group, width);
  dy += row * width;
  const C mean = MeanOf<C>(a, row);
  const C rstd = static_cast<const C*>(a.rstd)[row];
  // Sums of slope and of slope·(x − mean), where slope is the gradient of the
  // normed row.
  C slopes = 0, dots = 0;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto values = LoadPack<kSize>(x + at, width - at);
    const auto gradients = LoadPack<kSize>(dy + at, width - at);
    const auto factors = FactorsAt(a, scale, at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      const C slope = gradients[i] * factors[i];
      slopes += slope;
      dots = MultiplyAdd(slope, values[i] - mean, dots);
    }
  });
  const C inverse_width = C(1) / static_cast<C>(width);
  const C slope_mean =
      a.subtract_mean ? inverse_width * BlockSum<kThreads>(slopes) : C(0);
  const C dot_mean = inverse_width * rstd * BlockSum<kThreads>(dots);
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto values = LoadPack<kSize>(x + at, width - at);
    auto gradients = LoadPack<kSize>(dy + at, width - at);
    const auto factors = FactorsAt(a, scale, at);
    Pack<C, kSize> addends = {};
    if (add != nullptr) {
      addends = LoadPack<kSize>(add + row * width + at, width - at);
    }
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      const C normed = (values[i] - mean) * rstd;
      const C centred = MultiplyAdd(-normed, dot_mean,
                                    gradients[i] * factors[i] - slope_mean);
      gradients[i] = MultiplyAdd(centred, rstd, addends[i]);
    }
    StorePack(gradients, dx + row * width + at, width - at);
  });
}

// The sums over kNormBlockRows rows of dy·n and of dy, a thread for each pack
// of columns.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    PartialSumsKernel(const __grid_constant__ NormArguments a, int64_t blocks,
                      const T* dy, ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t width = a.width;
  const int64_t column =
      (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kSize;
  if (column >= width) return;
  const int64_t block = blockIdx.x;  // of all groups
  const int64_t first = block % blocks * kNormBlockRows;
  const int64_t rest_of_group = a.rows_per_group - first;
  const int64_t rows =
      rest_of_group < kNormBlockRows ? rest_of_group : kNormBlockRows;
  const int64_t begin = block / blocks * a.rows_per_group + first;
  Pack<C, kSize> dots = {}, plain = {};
  for (int64_t row = begin; row < begin + rows; ++row) {
    const int64_t at = row * width + column;
    const auto values =
        LoadPack<kSize>(static_cast<const T*>(a.x) + at, width - column);
    const auto gradients = LoadPack<kSize>(dy + at, width - column);
    const C mean = MeanOf<C>(a, row);
    const C rstd = static_cast<const C*>(a.rstd)[row];
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      dots[i] = MultiplyAdd(gradients[i], (values[i] - mean) * rstd, dots[i]);
      plain[i] += gradients[i];
    }
  }
  C* const to = partial_sums + block * 2 * width + column;
  StorePack(dots, to, width - column);
  StorePack(plain, to + width, width - column);
}

void Backward(Stream& stream, const NormArguments& a, const void* dy,
              const void* add_to_x, void* dx, void* partial_sums) {
  const int64_t rows = a.groups * a.rows_per_group;
  if (rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    // First, as dx may take the place of dy.
    if (partial_sums != nullptr) {
      constexpr int64_t kColumns = int64_t{kThreads} * kPackSize<T>;
      const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
      dim3 grid = GridFor(a.groups * blocks, 1);
      grid.y = static_cast<unsigned>((a.width + kColumns - 1) / kColumns);
      Launch({grid, kThreads, 0, Handle(stream)}, PartialSumsKernel<T>, a,
             blocks, static_cast<const T*>(dy),
             static_cast<ComputeType<T>*>(partial_sums));
    }
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)}, BackwardKernel<T>,
           a, static_cast<const T*>(dy), static_cast<const T*>(add_to_x),
           static_cast<T*>(dx));
  });
}

// A thread for each column of each group.
template <typename C, typename Out, bool kAccumulate>
__global__ void __launch_bounds__(kThreads)
    SumBlocksKernel(int64_t groups, int64_t blocks, int64_t width, int which,
                    int sums, const C* partial_sums, Out* out) {
  const int64_t at = GridThread();
  if (at >= groups * width) return;
  const int64_t group = at / width;
  const C* from = partial_sums + (group * blocks * sums + which) * width +
                  (at - group * width);
  C total = kAccumulate ? Widen(out[at]) : C(0);
  for (int64_t block = 0; block < blocks; ++block) {
    total += from[block * sums * width];
  }
  Narrow(total, out[at]);
}

void SumBlocks(Stream& stream, const NormArguments& a, const void* partial_sums,
               int which, int sums, bool accumulate, void* out) {
  if (a.groups * a.width == 0) return;
  const LaunchConfig config = {GridFor(a.groups * a.width, kThreads), kThreads,
                               0, Handle(stream)};
  const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
  DispatchElement(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const C* from = static_cast<const C*>(partial_sums);
    if (accumulate) {
      Launch(config, SumBlocksKernel<C, C, true>, a.groups, blocks, a.width,
             which, sums, from, static_cast<C*>(out));
    } else {
      Launch(config, SumBlocksKernel<C, T, false>, a.groups, blocks, a.width,
             which, sums, from, static_cast<T*>(out));
    }
  });
}

}  // namespace

NormKernels CudaNorms() {
  return {.forward = Forward,
          .backward = Backward,
          .sum_blocks = SumBlocks,
          .heads_forward = CudaHeadsNormForward,
          .heads_backward = CudaHeadsNormBackward};
}

}  // namespace trireme
