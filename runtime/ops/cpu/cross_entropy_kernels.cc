#include "runtime/ops/cpu/cross_entropy_kernels.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

// log Σ exp(x).
template <typename T>
double LogSumExp(const T* x, int64_t classes) {
  double highest = static_cast<double>(x[0]);
  for (int64_t i = 1; i < classes; ++i) {
    highest = std::max(highest, static_cast<double>(x[i]));
  }
  double sum = 0;
  for (int64_t i = 0; i < classes; ++i) {
    sum += std::exp(static_cast<double>(x[i]) - highest);
  }
  return highest + std::log(sum);
}

template <typename T>
double Mean(const T* x, int64_t classes) {
  double sum = 0;
  for (int64_t i = 0; i < classes; ++i) sum += static_cast<double>(x[i]);
  return sum / static_cast<double>(classes);
}

// Calls f(row, logits of the row, label), with a label that may be negative.
template <typename T, typename F>
void ForEachRow(const CrossEntropyArguments& a, F&& f) {
  ParallelRows(a.rows, a.classes, [&](int64_t row) {
    CHECK_LT(a.labels[row], a.classes);
    f(row, static_cast<const T*>(a.logits) + row * a.classes, a.labels[row]);
  });
}

}  // namespace

double CrossEntropySumKernel(const CrossEntropyArguments& arguments,
                             double* row_losses) {
  DispatchFloating(arguments.dtype, [&]<typename T>(T) {
    ForEachRow<T>(arguments, [&](int64_t row, const T* x, int32_t label) {
      row_losses[row] = 0;
      if (label < 0) return;
      double expected = static_cast<double>(x[label]);
      if (arguments.smoothing > 0) {
        expected += arguments.smoothing * (Mean(x, arguments.classes) -
                                           static_cast<double>(x[label]));
      }
      row_losses[row] = LogSumExp(x, arguments.classes) - expected;
    });
  });
  double sum = 0;
  for (int64_t row = 0; row < arguments.rows; ++row) sum += row_losses[row];
  return sum;
}

void CrossEntropyBackwardKernel(const CrossEntropyArguments& arguments,
                                double factor, void* gradient) {
  const int64_t classes = arguments.classes;
  const double of_label = 1 - arguments.smoothing;
  const double of_each = arguments.smoothing / static_cast<double>(classes);
  DispatchFloating(arguments.dtype, [&]<typename T>(T) {
    ForEachRow<T>(arguments, [&](int64_t row, const T* x, int32_t label) {
      T* const out = static_cast<T*>(gradient) + row * classes;
      if (label < 0) {
        std::fill(out, out + classes, T{});
        return;
      }
      const double log_sum = LogSumExp(x, classes);
      for (int64_t i = 0; i < classes; ++i) {
        const double probability =
            std::exp(static_cast<double>(x[i]) - log_sum);
        out[i] = static_cast<T>(static_cast<ComputeType<T>>(
            factor * (probability - of_each - (i == label ? of_label : 0.0))));
      }
    });
  });
}

}  // namespace trireme
