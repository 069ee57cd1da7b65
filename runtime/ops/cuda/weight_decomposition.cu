#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/column_sums.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// Threads of a row, or of elements.
constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AddRowProductsKernel(int64_t columns, double factor, const T* a, const T* b,
                         double* sums) {
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  double sum = 0;
  for (int64_t column = static_cast<int64_t>(threadIdx.x) * kSize;
       column < columns; column += kThreads * kSize) {
    const auto left =
        LoadPack<kSize>(a + row * columns + column, columns - column);
    const auto right =
        LoadPack<kSize>(b + row * columns + column, columns - column);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      sum = MultiplyAdd(static_cast<double>(left[i]),
                        static_cast<double>(right[i]), sum);
    }
  }
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) sums[row] += factor * sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DirectionFactorsKernel(int64_t n, const T* magnitude, const double* squares,
                           T* scale, T* inverse) {
  const int64_t i = GridThread();
  if (i >= n) return;
  const double of_row = squares[i] > 0 ? 1 / SquareRoot(squares[i]) : 0.0;
  inverse[i] = static_cast<T>(of_row);
  scale[i] = static_cast<T>(static_cast<double>(magnitude[i]) * of_row);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ScaleColumnsKernel(int64_t rows, int64_t columns, int64_t packs, const T* x,
                       const ComputeType<T>* factors, T* y) {
  constexpr int kSize = kPackSize<T>;
  const int64_t at = GridThread();
  if (at >= rows * packs) return;
  const int64_t row = at / packs;
  const int64_t column = (at - row * packs) * kSize;
  auto values = LoadPack<kSize>(x + row * columns + column, columns - column);
  const auto by = LoadPack<kSize>(factors + column, columns - column);
  UNROLL
  for (int i = 0; i < kSize; ++i) values[i] *= by[i];
  StorePack(values, y + row * columns + column, columns - column);
}

// Of the gradient of a column's magnitude.
template <typename T>
struct MagnitudeTerms {
  int64_t columns;
  const T* x;
  const T* dy;
  const ComputeType<T>* inverse;

  template <int kSize>
  __device__ Pack<ComputeType<T>, kSize> At(int64_t, int64_t row,
                                            int64_t column) const {
    const int64_t left = columns - column;
    auto values = LoadPack<kSize>(x + row * columns + column, left);
    const auto slopes = LoadPack<kSize>(dy + row * columns + column, left);
    const auto by = LoadPack<kSize>(inverse + column, left);
    UNROLL
    for (int i = 0; i < kSize; ++i) values[i] *= slopes[i] * by[i];
    return values;
  }
};

void AddRowProducts(Stream& stream, DType dtype, int64_t rows, int64_t columns,
                    double factor, const void* a, const void* b, double* sums) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)},
           AddRowProductsKernel<T>, columns, factor, static_cast<const T*>(a),
           static_cast<const T*>(b), sums);
  });
}

void FactorsOfRows(Stream& stream, DType dtype, int64_t n,
                   const void* magnitude, const double* squares, void* scale,
                   void* inverse) {
  if (n == 0) return;
  const auto launch = [&]<typename T>(T) {
    Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)},
           DirectionFactorsKernel<T>, n, static_cast<const T*>(magnitude),
           squares, static_cast<T*>(scale), static_cast<T*>(inverse));
  };
  if (dtype == DType::kFloat64) {
    launch(double{});
  } else {
    launch(float{});
  }
}

void ScaleColumns(Stream& stream, DType dtype, int64_t rows, int64_t columns,
                  const void* x, const void* factors, void* y) {
  if (rows * columns == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    const int64_t packs = (columns + kPackSize<T> - 1) / kPackSize<T>;
    Launch({GridFor(rows * packs, kThreads), kThreads, 0, Handle(stream)},
           ScaleColumnsKernel<T>, rows, columns, packs,
           static_cast<const T*>(x),
           static_cast<const ComputeType<T>*>(factors), static_cast<T*>(y));
  });
}

void MagnitudeGradient(Stream& stream, DType dtype, int64_t rows,
                       int64_t columns, const void* x, const void* dy,
                       const void* inverse, void* gradient) {
  DispatchElement(dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    SumColumns<T, /*kAccumulate=*/true>(
        stream, 1, rows, columns,
        MagnitudeTerms<T>{columns, static_cast<const T*>(x),
                          static_cast<const T*>(dy),
                          static_cast<const C*>(inverse)},
        static_cast<C*>(gradient));
  });
}

}  // namespace

WeightDecompositionKernels CudaWeightDecompositions() {
  return {.add_row_products = AddRowProducts,
          .direction_factors = FactorsOfRows,
          .scale_columns = ScaleColumns,
          .magnitude_gradient = MagnitudeGradient};
}

}  // namespace trireme
