#include "runtime/ops/cpu/split_norm_kernels.h"

#include <cmath>

namespace trireme {
namespace {

// Fewer elements are not worth waking threads for.
constexpr int64_t kParallelElements = 1 << 15;

// A rank's part of one row.
template <typename T>
struct Row {
  using Compute = ComputeType<T>;

  Row(const SplitNormArguments& a, int64_t index)
      : x(static_cast<const T*>(a.x) + index * a.columns),
        weight(static_cast<const T*>(a.weight)),
        offset(index * a.columns) {}

  Compute X(int64_t i) const { return static_cast<Compute>(x[i]); }
  Compute Weight(int64_t i) const { return static_cast<Compute>(weight[i]); }

  const T* x;
  const T* weight;
  int64_t offset;
};

double InverseRms(const SplitNormArguments& a, int64_t row) {
  return 1.0 / std::sqrt(a.squares[row] / static_cast<double>(a.width) + a.eps);
}

// Calls f(Row<T>, index) for each row.
template <typename F>
void ForEachRow(const SplitNormArguments& a, F&& f) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
#pragma omp parallel for schedule(static) if (a.rows * a.columns >= \
                                              kParallelElements)
    for (int64_t row = 0; row < a.rows; ++row) f(Row<T>(a, row), row);
  });
}

}  // namespace

void SplitNormSquares(const SplitNormArguments& a, double* squares) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    double sum = 0;
    for (int64_t i = 0; i < a.columns; ++i) {
      const double x = static_cast<double>(row.X(i));
      sum += x * x;
    }
    squares[index] = sum;
  });
}

void SplitNormForward(const SplitNormArguments& a, void* y) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    using Compute = ComputeType<T>;
    const auto rms = static_cast<Compute>(InverseRms(a, index));
    T* out = static_cast<T*>(y) + row.offset;
    for (int64_t i = 0; i < a.columns; ++i) {
      out[i] = static_cast<T>(row.X(i) * rms * row.Weight(i));
    }
  });
}

void SplitNormDots(const SplitNormArguments& a, const void* dy, double* dots) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    const T* gradient = static_cast<const T*>(dy) + row.offset;
    double sum = 0;
    for (int64_t i = 0; i < a.columns; ++i) {
      sum += static_cast<double>(row.X(i)) *
             static_cast<double>(row.Weight(i)) *
             static_cast<double>(gradient[i]);
    }
    dots[index] = sum;
  });
}

void SplitNormBackward(const SplitNormArguments& a, const void* dy,
                       const double* dots, void* dx) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    using Compute = ComputeType<T>;
    const double inverse = InverseRms(a, index);
    const auto rms = static_cast<Compute>(inverse);
    const auto along =
        static_cast<Compute>(inverse * inverse * inverse * dots[index] /
                             static_cast<double>(a.width));
    const T* gradient = static_cast<const T*>(dy) + row.offset;
    T* out = static_cast<T*>(dx) + row.offset;
    for (int64_t i = 0; i < a.columns; ++i) {
      out[i] = static_cast<T>(rms * row.Weight(i) *
                                  static_cast<Compute>(gradient[i]) -
                              along * row.X(i));
    }
  });
}

void SplitNormWeightGradient(const SplitNormArguments& a, const void* dy,
                             void* weight_gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using Compute = ComputeType<T>;
    auto* sums = static_cast<Compute*>(weight_gradient);
    // Rows in order, whatever the number of threads: columns are shared out.
#pragma omp parallel for schedule(static) if (a.rows * a.columns >= \
                                              kParallelElements)
    for (int64_t i = 0; i < a.columns; ++i) {
      double sum = 0;
      for (int64_t r = 0; r < a.rows; ++r) {
        const Row<T> row(a, r);
        const T* gradient = static_cast<const T*>(dy) + row.offset;
        sum += static_cast<double>(row.X(i)) * InverseRms(a, r) *
               static_cast<double>(gradient[i]);
      }
      sums[i] += static_cast<Compute>(sum);
    }
  });
}

}  // namespace trireme
