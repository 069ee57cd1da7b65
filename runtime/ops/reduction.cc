#include "runtime/ops/reduction.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/reduction_kernels.h"

namespace trireme {
namespace {

double Reduce(const Tensor& x, ScalarReduction reduction) {
  if (x.device().dry()) return 0;
  return ReduceKernel(x.dtype(), reduction, x.num_elements(), x.raw_data());
}

Tensor ScalarLike(const Tensor& x, double value, std::string_view label) {
  const bool wide = x.dtype() == DType::kFloat64;
  Tensor scalar =
      Tensor::Empty(x.device(), {1}, wide ? DType::kFloat64 : DType::kFloat32,
                    MemoryCategory::kActivations, label);
  if (x.device().dry()) return scalar;
  if (wide) {
    *scalar.data<double>() = value;
  } else {
    *scalar.data<float>() = static_cast<float>(value);
  }
  return scalar;
}

void CheckSame(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.shape(), b.shape());
  CHECK_EQ(a.dtype(), b.dtype());
}

int64_t Rows(const Tensor& x) { return x.num_elements() / x.dim(-1); }

// Calls f(row, highest logit, log of the sum of exponentials) for each row with
// a label, in fp64: classes are few, and losses are compared across grids.
template <typename T, typename F>
void ForEachLabelledRow(const Tensor& logits, const Tensor& labels, F&& f) {
  const int64_t classes = logits.dim(-1);
  const int32_t* label = labels.data<int32_t>();
  for (int64_t row = 0; row < Rows(logits); ++row) {
    if (label[row] < 0) continue;
    CHECK_LT(label[row], classes);
    const T* x = logits.data<T>() + row * classes;
    double highest = static_cast<double>(x[0]);
    for (int64_t i = 1; i < classes; ++i) {
      highest = std::max(highest, static_cast<double>(x[i]));
    }
    double sum = 0;
    for (int64_t i = 0; i < classes; ++i) {
      sum += std::exp(static_cast<double>(x[i]) - highest);
    }
    f(row, label[row], highest + std::log(sum));
  }
}

}  // namespace

double Sum(const Tensor& x) { return Reduce(x, ScalarReduction::kSum); }

double SumOfSquares(const Tensor& x) {
  return Reduce(x, ScalarReduction::kSumOfSquares);
}

std::vector<double> BlockSumsOfSquares(const Tensor& x, int64_t block) {
  CHECK_GT(block, 0);
  if (x.device().dry()) return {};
  std::vector<double> sums((x.num_elements() + block - 1) / block);
  BlockSumsOfSquaresKernel(x.dtype(), x.num_elements(), block, x.raw_data(),
                           sums.data());
  return sums;
}

double MaxAbs(const Tensor& x) { return Reduce(x, ScalarReduction::kMaxAbs); }

bool AllFinite(const Tensor& x) {
  return Reduce(x, ScalarReduction::kNonFinite) == 0;
}

Tensor SoftmaxForward(const Tensor& x) {
  Tensor y = Tensor::EmptyLike(x, "softmax");
  if (x.device().dry()) return y;
  SoftmaxForwardKernel(x.dtype(), Rows(x), x.dim(-1), x.raw_data(),
                       y.raw_data());
  return y;
}

Tensor SoftmaxBackward(const Tensor& y, const Tensor& grad_out) {
  CheckSame(y, grad_out);
  Tensor dx = Tensor::EmptyLike(y, "softmax gradient");
  if (y.device().dry()) return dx;
  SoftmaxBackwardKernel(y.dtype(), Rows(y), y.dim(-1), y.raw_data(),
                        grad_out.raw_data(), dx.raw_data());
  return dx;
}

Tensor SumTokens(const Tensor& x) {
  CHECK_EQ(x.rank(), 3);
  Tensor out = Tensor::Empty(x.device(), {x.dim(0), x.dim(2)}, x.dtype(),
                             MemoryCategory::kActivations, "sum over tokens");
  if (x.device().dry()) return out;
  SumTokensKernel(x.dtype(), x.dim(0), x.dim(1), x.dim(2), x.raw_data(),
                  out.raw_data());
  return out;
}

Tensor SquaredErrorSum(const Tensor& prediction, const Tensor& target) {
  CheckSame(prediction, target);
  const double sum =
      prediction.device().dry()
          ? 0
          : SquaredErrorKernel(prediction.dtype(), prediction.num_elements(),
                               prediction.raw_data(), target.raw_data());
  return ScalarLike(prediction, sum, "squared error");
}

Tensor SquaredErrorBackward(const Tensor& prediction, const Tensor& target,
                            double factor) {
  CheckSame(prediction, target);
  Tensor dx = Tensor::EmptyLike(prediction, "squared error gradient");
  if (prediction.device().dry()) return dx;
  SquaredErrorBackwardKernel(prediction.dtype(), prediction.num_elements(),
                             factor, prediction.raw_data(), target.raw_data(),
                             dx.raw_data());
  return dx;
}

Tensor CrossEntropySum(const Tensor& logits, const Tensor& labels) {
  CHECK_EQ(labels.num_elements(), Rows(logits));
  double sum = 0;
  if (!logits.device().dry()) {
    DispatchFloating(logits.dtype(), [&](auto element) {
      using T = decltype(element);
      ForEachLabelledRow<T>(
          logits, labels, [&](int64_t row, int32_t label, double log_sum) {
            sum +=
                log_sum - static_cast<double>(
                              logits.data<T>()[row * logits.dim(-1) + label]);
          });
    });
  }
  return ScalarLike(logits, sum, "cross entropy");
}

Tensor CrossEntropyBackward(const Tensor& logits, const Tensor& labels,
                            double factor) {
  CHECK_EQ(labels.num_elements(), Rows(logits));
  Tensor dx = Tensor::EmptyLike(logits, "cross entropy gradient");
  dx.FillZero();
  if (logits.device().dry()) return dx;
  const int64_t classes = logits.dim(-1);
  DispatchFloating(logits.dtype(), [&](auto element) {
    using T = decltype(element);
    ForEachLabelledRow<T>(
        logits, labels, [&](int64_t row, int32_t label, double log_sum) {
          const T* x = logits.data<T>() + row * classes;
          T* out = dx.data<T>() + row * classes;
          for (int64_t i = 0; i < classes; ++i) {
            const double probability =
                std::exp(static_cast<double>(x[i]) - log_sum);
            out[i] = static_cast<T>(static_cast<ComputeType<T>>(
                factor * (probability - (i == label ? 1.0 : 0.0))));
          }
        });
  });
  return dx;
}

}  // namespace trireme
