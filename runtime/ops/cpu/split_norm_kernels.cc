#include "runtime/ops/cpu/split_norm_kernels.h"

#include <cmath>

namespace trireme {
namespace {

// Fewer elements are not worth waking threads for.
constexpr int64_t kParallelElements = 1 << 15;

template <typename T>
const T* RowOf(const void* first, const HeadsLayout& layout, int64_t row) {
  return static_cast<const T*>(first) + layout.offset + row * layout.row_stride;
}
template <typename T>
T* RowOf(void* first, const HeadsLayout& layout, int64_t row) {
  return static_cast<T*>(first) + layout.offset + row * layout.row_stride;
}

// A rank's part of one row.
template <typename T>
class Row {
 public:
  using Compute = ComputeType<T>;

  Row(const SplitNormArguments& a, int64_t index)
      : x_(RowOf<T>(a.x, a.x_layout, index)),
        weight_(static_cast<const T*>(a.weight)),
        head_dim_(a.head_dim) {
    if (a.cos == nullptr) return;
    const int64_t angles = index % a.tokens * (a.head_dim / 2);
    cos_ = static_cast<const Compute*>(a.cos) + angles;
    sin_ = static_cast<const Compute*>(a.sin) + angles;
  }

  Compute X(int64_t i) const { return static_cast<Compute>(x_[i]); }
  Compute Weight(int64_t i) const { return static_cast<Compute>(weight_[i]); }

  // Channels i and i + 1 of a head, i even, are turned together; `direction` is
  // 1, or −1 to turn them back.
  void Rotate(int64_t i, Compute direction, Compute& even, Compute& odd) const {
    if (cos_ == nullptr) return;
    const Compute cos = cos_[i % head_dim_ / 2];
    const Compute sin = direction * sin_[i % head_dim_ / 2];
    const Compute before = even;
    even = before * cos - odd * sin;
    odd = odd * cos + before * sin;
  }

  // Calls f(i, slope) for each column, the slope that of the normed x.
  template <typename F>
  void ForEachSlope(int64_t columns, const T* gradient, F&& f) const {
    if (cos_ == nullptr) {
      for (int64_t i = 0; i < columns; ++i) {
        f(i, static_cast<Compute>(gradient[i]));
      }
      return;
    }
    for (int64_t i = 0; i < columns; i += 2) {
      auto even = static_cast<Compute>(gradient[i]);
      auto odd = static_cast<Compute>(gradient[i + 1]);
      Rotate(i, Compute(-1), even, odd);
      f(i, even);
      f(i + 1, odd);
    }
  }

  bool rotated() const { return cos_ != nullptr; }

 private:
  const T* x_;
  const T* weight_;
  int64_t head_dim_;
  const Compute* cos_ = nullptr;
  const Compute* sin_ = nullptr;
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

void SplitNormSquaresKernel(const SplitNormArguments& a, double* squares) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    double sum = 0;
    for (int64_t i = 0; i < a.columns; ++i) {
      const double x = static_cast<double>(row.X(i));
      sum += x * x;
    }
    squares[index] = sum;
  });
}

void SplitNormForwardKernel(const SplitNormArguments& a, void* y,
                            const HeadsLayout& y_layout) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    using Compute = ComputeType<T>;
    const auto rms = static_cast<Compute>(InverseRms(a, index));
    T* out = RowOf<T>(y, y_layout, index);
    const auto normed = [&](int64_t i) {
      return row.X(i) * rms * row.Weight(i);
    };
    if (!row.rotated()) {
      for (int64_t i = 0; i < a.columns; ++i) {
        out[i] = static_cast<T>(normed(i));
      }
      return;
    }
    for (int64_t i = 0; i < a.columns; i += 2) {
      Compute even = normed(i), odd = normed(i + 1);
      row.Rotate(i, Compute(1), even, odd);
      out[i] = static_cast<T>(even);
      out[i + 1] = static_cast<T>(odd);
    }
  });
}

void SplitNormDotsKernel(const SplitNormArguments& a, const void* dy,
                         const HeadsLayout& dy_layout, double* dots) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    double sum = 0;
    row.ForEachSlope(a.columns, RowOf<T>(dy, dy_layout, index),
                     [&](int64_t i, ComputeType<T> slope) {
                       sum += static_cast<double>(row.X(i)) *
                              static_cast<double>(row.Weight(i)) *
                              static_cast<double>(slope);
                     });
    dots[index] = sum;
  });
}

void SplitNormBackwardKernel(const SplitNormArguments& a, const void* dy,
                             const HeadsLayout& dy_layout, const double* dots,
                             void* dx, const HeadsLayout& dx_layout) {
  ForEachRow(a, [&]<typename T>(const Row<T>& row, int64_t index) {
    using Compute = ComputeType<T>;
    const double inverse = InverseRms(a, index);
    const auto rms = static_cast<Compute>(inverse);
    const auto along =
        static_cast<Compute>(inverse * inverse * inverse * dots[index] /
                             static_cast<double>(a.width));
    T* out = RowOf<T>(dx, dx_layout, index);
    row.ForEachSlope(a.columns, RowOf<T>(dy, dy_layout, index),
                     [&](int64_t i, Compute slope) {
                       out[i] = static_cast<T>(rms * row.Weight(i) * slope -
                                               along * row.X(i));
                     });
  });
}

void SplitNormWeightGradientKernel(const SplitNormArguments& a, const void* dy,
                                   const HeadsLayout& dy_layout,
                                   void* gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using Compute = ComputeType<T>;
    auto* sums = static_cast<Compute*>(gradient);
    const int64_t heads = a.columns / a.head_dim;
    // Rows in order, whatever the number of threads: heads are shared out.
#pragma omp parallel for schedule(static) if (a.rows * a.columns >= \
                                              kParallelElements)
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = head * a.head_dim;
      double of_head[kMaxHeadDim] = {};
      for (int64_t r = 0; r < a.rows; ++r) {
        const Row<T> row(a, r);
        const double rms = InverseRms(a, r);
        row.ForEachSlope(a.head_dim, RowOf<T>(dy, dy_layout, r) + first,
                         [&](int64_t i, Compute slope) {
                           of_head[i] += static_cast<double>(row.X(first + i)) *
                                         rms * static_cast<double>(slope);
                         });
      }
      for (int64_t i = 0; i < a.head_dim; ++i) {
        sums[first + i] += static_cast<Compute>(of_head[i]);
      }
    }
  });
}

}  // namespace trireme
