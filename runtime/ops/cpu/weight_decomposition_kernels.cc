#include "runtime/ops/cpu/weight_decomposition_kernels.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sum_rows.h"

namespace trireme {
namespace {

// Sums that run beside each other, so that one need not wait for the other.
constexpr int64_t kLanes = 16;
// Columns whose sums over rows a thread makes together.
constexpr int64_t kColumns = 256;

template <typename T>
double Dot(const T* a, const T* b, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      lanes[k] += Wide(a[i + k]) * Wide(b[i + k]);
    }
  }
  for (int64_t k = 0; i < n; ++i, ++k) lanes[k] += Wide(a[i]) * Wide(b[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void AddRowProductsKernel(DType dtype, int64_t rows, int64_t columns,
                          double factor, const void* a, const void* b,
                          double* sums) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(rows, columns, [&](int64_t row) {
      sums[row] +=
          factor * Dot(static_cast<const T*>(a) + row * columns,
                       static_cast<const T*>(b) + row * columns, columns);
    });
  });
}

void DirectionFactorsKernel(DType dtype, int64_t n, const void* magnitude,
                            const double* squares, void* scale, void* inverse) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      const double of_row = squares[i] > 0 ? 1 / std::sqrt(squares[i]) : 0.0;
      static_cast<T*>(inverse)[i] = Rounded<T>(of_row);
      static_cast<T*>(scale)[i] =
          Rounded<T>(Wide(static_cast<const T*>(magnitude)[i]) * of_row);
    }
  });
}

void ScaleColumnsKernel(DType dtype, int64_t rows, int64_t columns,
                        const void* x, const void* factors, void* y) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    using Compute = ComputeType<T>;
    const auto* by = static_cast<const Compute*>(factors);
    ParallelRows(rows, columns, [&](int64_t row) {
      const T* in = static_cast<const T*>(x) + row * columns;
      T* out = static_cast<T*>(y) + row * columns;
      for (int64_t i = 0; i < columns; ++i) {
        out[i] = static_cast<T>(static_cast<Compute>(in[i]) * by[i]);
      }
    });
  });
}

void MagnitudeGradientKernel(DType dtype, int64_t rows, int64_t columns,
                             const void* x, const void* dy, const void* inverse,
                             void* gradient) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    using Compute = ComputeType<T>;
    const int64_t blocks = (columns + kColumns - 1) / kColumns;
    // Rows in order, whatever the number of threads: columns are shared out.
    ParallelRows(blocks, rows * kColumns, [&](int64_t block) {
      const int64_t first = block * kColumns;
      const int64_t count = std::min(kColumns, columns - first);
      double of_columns[kColumns] = {};
      for (int64_t row = 0; row < rows; ++row) {
        const T* in = static_cast<const T*>(x) + row * columns + first;
        const T* slope = static_cast<const T*>(dy) + row * columns + first;
        for (int64_t i = 0; i < count; ++i) {
          of_columns[i] += Wide(in[i]) * Wide(slope[i]);
        }
      }
      for (int64_t i = 0; i < count; ++i) {
        static_cast<Compute*>(gradient)[first + i] += static_cast<Compute>(
            of_columns[i] * static_cast<double>(static_cast<const Compute*>(
                                inverse)[first + i]));
      }
    });
  });
}

}  // namespace trireme
