#include <algorithm>

#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/column_sums.cuh"
#include "runtime/ops/cuda/cross_entropy.h"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/readback.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

// What is reduced: a number of each pack of operands, and how such numbers are
// combined from 0 on. Elements beyond the end read as zeros.

struct SumTerms {
  using Combine = Plus;
  template <typename C, int kSize>
  __device__ static double Of(const Pack<C, kSize>& x) {
    C sum = 0;
    UNROLL
    for (int i = 0; i < kSize; ++i) sum += x[i];
    return sum;
  }
};

struct SquareTerms {
  using Combine = Plus;
  template <typename C, int kSize>
  __device__ static double Of(const Pack<C, kSize>& x) {
    C sum = 0;
    UNROLL
    for (int i = 0; i < kSize; ++i) sum = MultiplyAdd(x[i], x[i], sum);
    return sum;
  }
};

struct AbsoluteTerms {
  using Combine = Higher;
  template <typename C, int kSize>
  __device__ static double Of(const Pack<C, kSize>& x) {
    C highest = 0;
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      highest = Higher()(highest, x[i] < C(0) ? -x[i] : x[i]);
    }
    return highest;
  }
};

struct NonFiniteTerms {
  using Combine = Plus;
  template <typename C, int kSize>
  __device__ static double Of(const Pack<C, kSize>& x) {
    int count = 0;
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      // ∞ − ∞ and NaN − NaN are NaN.
      const C difference = x[i] - x[i];
      count += difference == C(0) ? 0 : 1;
    }
    return count;
  }
};

struct SquaredErrorTerms {
  using Combine = Plus;
  template <typename C, int kSize>
  __device__ static double Of(const Pack<C, kSize>& a,
                              const Pack<C, kSize>& b) {
    C sum = 0;
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      sum = MultiplyAdd(a[i] - b[i], a[i] - b[i], sum);
    }
    return sum;
  }
};

// results[b] of elements [b·length, (b + 1)·length) of n.
template <typename T, typename Terms, typename... In>
__global__ void __launch_bounds__(kThreads)
    ReduceKernel(int64_t n, int64_t length, double* results, const In*... in) {
  constexpr int kSize = kPackSize<T>;
  const int64_t begin = blockIdx.x * length;
  const int64_t end = begin + length < n ? begin + length : n;
  const typename Terms::Combine combine;
  double result = 0;
  for (int64_t at = begin + static_cast<int64_t>(threadIdx.x) * kSize; at < end;
       at += static_cast<int64_t>(kThreads) * kSize) {
    result = combine(result, Terms::Of(LoadPack<kSize>(in + at, end - at)...));
  }
  result = CombineBlock<kThreads>(result, combine);
  if (threadIdx.x == 0) results[blockIdx.x] = result;
}

// Calls f(result) for each range of `length` elements, in their order.
template <typename Terms, typename T, typename F, typename... In>
void ReduceRanges(Stream& stream, int64_t n, int64_t length, F&& f, const T* x,
                  const In*... more) {
  const std::span<double> results = ReadbackAs<double>(stream);
  const int64_t most = static_cast<int64_t>(results.size()) * length;
  for (int64_t done = 0; done < n; done += most) {
    const int64_t count = std::min(most, n - done);
    const int64_t ranges = (count + length - 1) / length;
    Launch({GridFor(ranges, 1), kThreads, 0, Handle(stream)},
           ReduceKernel<T, Terms, T, In...>, count, length, results.data(),
           x + done, more + done...);
    stream.Synchronize();
    for (int64_t i = 0; i < ranges; ++i) f(results[i]);
  }
}

// One range for each block of a grid that fills the device.
template <typename T>
int64_t RangeLength(int64_t n) {
  constexpr int64_t kMaxBlocks = 1024;
  constexpr int64_t kStep = int64_t{kThreads} * kPackSize<T>;
  const int64_t length = (n + kMaxBlocks - 1) / kMaxBlocks;
  return (length + kStep - 1) / kStep * kStep;
}

template <typename Terms, typename T, typename... In>
double ReduceAll(Stream& stream, int64_t n, const T* x, const In*... more) {
  double result = 0;
  ReduceRanges<Terms>(
      stream, n, RangeLength<T>(n),
      [&](double of_range) {
        // As Terms::Combine, which is the device's.
        if constexpr (std::is_same_v<typename Terms::Combine, Plus>) {
          result += of_range;
        } else if (of_range > result || of_range != of_range) {
          result = of_range;
        }
      },
      x, more...);
  return result;
}

double Reduce(Stream& stream, DType dtype, ScalarReduction reduction, int64_t n,
              const void* x) {
  double result = 0;
  DispatchElement(dtype, [&]<typename T>(T) {
    const T* in = static_cast<const T*>(x);
    switch (reduction) {
      case ScalarReduction::kSum:
        result = ReduceAll<SumTerms>(stream, n, in);
        break;
      case ScalarReduction::kSumOfSquares:
        result = ReduceAll<SquareTerms>(stream, n, in);
        break;
      case ScalarReduction::kMaxAbs:
        result = ReduceAll<AbsoluteTerms>(stream, n, in);
        break;
      case ScalarReduction::kNonFinite:
        result = ReduceAll<NonFiniteTerms>(stream, n, in);
        break;
    }
  });
  return result;
}

void BlockSumsOfSquares(Stream& stream, DType dtype, int64_t n, int64_t block,
                        const void* x, double* sums) {
  DispatchElement(dtype, [&]<typename T>(T) {
    ReduceRanges<SquareTerms>(
        stream, n, block, [&](double sum) { *sums++ = sum; },
        static_cast<const T*>(x));
  });
}

double SquaredError(Stream& stream, DType dtype, int64_t n, const void* a,
                    const void* b) {
  double result = 0;
  DispatchElement(dtype, [&]<typename T>(T) {
    result = ReduceAll<SquaredErrorTerms>(stream, n, static_cast<const T*>(a),
                                          static_cast<const T*>(b));
  });
  return result;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SquaredErrorBackwardKernel(int64_t n, ComputeType<T> twice, const T* a,
                               const T* b, T* out) {
  constexpr int kSize = kPackSize<T>;
  const int64_t at = GridThread() * kSize;
  if (at >= n) return;
  auto difference = LoadPack<kSize>(a + at, n - at);
  const auto other = LoadPack<kSize>(b + at, n - at);
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    difference[i] = (difference[i] - other[i]) * twice;
  }
  StorePack(difference, out + at, n - at);
}

void SquaredErrorBackward(Stream& stream, DType dtype, int64_t n, double factor,
                          const void* a, const void* b, void* out) {
  if (n == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    constexpr int kSize = kPackSize<T>;
    Launch({GridFor((n + kSize - 1) / kSize, kThreads), kThreads, 0,
            Handle(stream)},
           SquaredErrorBackwardKernel<T>, n,
           static_cast<ComputeType<T>>(2 * factor), static_cast<const T*>(a),
           static_cast<const T*>(b), static_cast<T*>(out));
  });
}

constexpr int kRowThreads = 128;

// Calls f(column) for the packs of a row, by turns.
template <int kSize, typename F>
__device__ void ForRowPacks(int64_t width, F&& f) {
  for (int64_t at = static_cast<int64_t>(threadIdx.x) * kSize; at < width;
       at += static_cast<int64_t>(kRowThreads) * kSize) {
    f(at);
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    SoftmaxForwardKernel(int64_t width, const T* x, T* y) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  x += blockIdx.x * width;
  y += blockIdx.x * width;
  C highest = Widen(x[0]);
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto values = LoadPack<kSize>(x + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      if (at + i < width) highest = Higher()(highest, values[i]);
    }
  });
  highest = CombineBlock<kRowThreads>(highest, Higher());
  C sum = 0;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto values = LoadPack<kSize>(x + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      if (at + i < width) sum += Exp(values[i] - highest);
    }
  });
  const C scale = C(1) / BlockSum<kRowThreads>(sum);
  ForRowPacks<kSize>(width, [&](int64_t at) {
    auto values = LoadPack<kSize>(x + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      values[i] = Exp(values[i] - highest) * scale;
    }
    StorePack(values, y + at, width - at);
  });
}

void SoftmaxForward(Stream& stream, DType dtype, int64_t rows, int64_t width,
                    const void* x, void* y) {
  if (rows * width == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kRowThreads, 0, Handle(stream)},
           SoftmaxForwardKernel<T>, width, static_cast<const T*>(x),
           static_cast<T*>(y));
  });
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    SoftmaxBackwardKernel(int64_t width, const T* y, const T* dy, T* dx) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t begin = blockIdx.x * width;
  y += begin;
  dy += begin;
  C dot = 0;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto p = LoadPack<kSize>(y + at, width - at);
    const auto slope = LoadPack<kSize>(dy + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) dot = MultiplyAdd(p[i], slope[i], dot);
  });
  dot = BlockSum<kRowThreads>(dot);
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto p = LoadPack<kSize>(y + at, width - at);
    auto slope = LoadPack<kSize>(dy + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) slope[i] = p[i] * (slope[i] - dot);
    StorePack(slope, dx + begin + at, width - at);
  });
}

void SoftmaxBackward(Stream& stream, DType dtype, int64_t rows, int64_t width,
                     const void* y, const void* dy, void* dx) {
  if (rows * width == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kRowThreads, 0, Handle(stream)},
           SoftmaxBackwardKernel<T>, width, static_cast<const T*>(y),
           static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

void SumTokens(Stream& stream, DType dtype, int64_t batch, int64_t tokens,
               int64_t width, const void* x, void* out) {
  DispatchElement(dtype, [&]<typename T>(T) {
    SumColumns<T, /*kAccumulate=*/false>(
        stream, batch, tokens, width,
        ElementTerms<T>{width, static_cast<const T*>(x)}, static_cast<T*>(out));
  });
}

void AddColumnSums(Stream& stream, DType dtype, int64_t rows, int64_t columns,
                   const void* x, void* out) {
  DispatchElement(dtype, [&]<typename T>(T) {
    SumColumns<T, /*kAccumulate=*/true>(
        stream, 1, rows, columns,
        ElementTerms<T>{columns, static_cast<const T*>(x)},
        static_cast<ComputeType<T>*>(out));
  });
}

}  // namespace

ReductionKernels CudaReductions() {
  return {.reduce = Reduce,
          .block_sums_of_squares = BlockSumsOfSquares,
          .softmax_forward = SoftmaxForward,
          .softmax_backward = SoftmaxBackward,
          .sum_tokens = SumTokens,
          .squared_error = SquaredError,
          .squared_error_backward = SquaredErrorBackward,
          .cross_entropy = CudaCrossEntropy,
          .cross_entropy_backward = CudaCrossEntropyBackward,
          .add_column_sums = AddColumnSums};
}

}  // namespace trireme
