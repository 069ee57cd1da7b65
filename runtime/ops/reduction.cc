#include "runtime/ops/reduction.h"

#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

double Reduce(const Tensor& x, ScalarReduction reduction) {
  Device& device = x.device();
  return device.kernels().reduction.reduce(
      device.stream(), x.dtype(), reduction, x.num_elements(), x.raw_data());
}

// One element in the compute type.
Tensor ScalarLike(const Tensor& x, double value, std::string_view label) {
  return Full(x.device(), {1},
              x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32,
              value, MemoryCategory::kActivations, label);
}

void CheckSame(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.shape(), b.shape());
  CHECK_EQ(a.dtype(), b.dtype());
}

int64_t Rows(const Tensor& x) { return x.num_elements() / x.dim(-1); }

CrossEntropyArguments ArgumentsOf(const Tensor& logits, const Tensor& labels,
                                  double smoothing) {
  CHECK(smoothing >= 0 && smoothing <= 1) << smoothing;
  CHECK_EQ(labels.num_elements(), Rows(logits));
  CHECK_EQ(labels.dtype(), DType::kInt32);
  return {.dtype = logits.dtype(),
          .rows = Rows(logits),
          .classes = logits.dim(-1),
          .logits = logits.raw_data(),
          .labels = static_cast<const int32_t*>(labels.raw_data()),
          .smoothing = smoothing};
}

}  // namespace

double Sum(const Tensor& x) { return Reduce(x, ScalarReduction::kSum); }

double SumOfSquares(const Tensor& x) {
  return Reduce(x, ScalarReduction::kSumOfSquares);
}

std::vector<double> BlockSumsOfSquares(const Tensor& x, int64_t block) {
  CHECK_GT(block, 0);
  Device& device = x.device();
  if (device.dry()) return {};
  std::vector<double> sums((x.num_elements() + block - 1) / block);
  device.kernels().reduction.block_sums_of_squares(device.stream(), x.dtype(),
                                                   x.num_elements(), block,
                                                   x.raw_data(), sums.data());
  device.stream().Synchronize();
  return sums;
}

double MaxAbs(const Tensor& x) { return Reduce(x, ScalarReduction::kMaxAbs); }

bool AllFinite(const Tensor& x) {
  return Reduce(x, ScalarReduction::kNonFinite) == 0;
}

double ValueOf(const Tensor& one_element) {
  CHECK_EQ(one_element.num_elements(), 1);
  if (one_element.device().dry()) return 0;
  return DispatchFloating(one_element.dtype(), [&]<typename T>(T) {
    return static_cast<double>(Download<T>(one_element).front());
  });
}

Tensor SoftmaxForward(const Tensor& x) {
  Tensor y = Tensor::EmptyLike(x, "softmax");
  Device& device = x.device();
  device.kernels().reduction.softmax_forward(device.stream(), x.dtype(),
                                             Rows(x), x.dim(-1), x.raw_data(),
                                             y.raw_data());
  return y;
}

Tensor SoftmaxBackward(const Tensor& y, const Tensor& grad_out) {
  CheckSame(y, grad_out);
  Tensor dx = Tensor::EmptyLike(y, "softmax gradient");
  Device& device = y.device();
  device.kernels().reduction.softmax_backward(
      device.stream(), y.dtype(), Rows(y), y.dim(-1), y.raw_data(),
      grad_out.raw_data(), dx.raw_data());
  return dx;
}

Tensor SumTokens(const Tensor& x) {
  CHECK_EQ(x.rank(), 3);
  Tensor out = Tensor::Empty(x.device(), {x.dim(0), x.dim(2)}, x.dtype(),
                             MemoryCategory::kActivations, "sum over tokens");
  Device& device = x.device();
  device.kernels().reduction.sum_tokens(device.stream(), x.dtype(), x.dim(0),
                                        x.dim(1), x.dim(2), x.raw_data(),
                                        out.raw_data());
  return out;
}

Tensor SquaredErrorSum(const Tensor& prediction, const Tensor& target) {
  CheckSame(prediction, target);
  Device& device = prediction.device();
  const double sum = device.kernels().reduction.squared_error(
      device.stream(), prediction.dtype(), prediction.num_elements(),
      prediction.raw_data(), target.raw_data());
  return ScalarLike(prediction, sum, "squared error");
}

Tensor SquaredErrorBackward(const Tensor& prediction, const Tensor& target,
                            double factor) {
  CheckSame(prediction, target);
  Tensor dx = Tensor::EmptyLike(prediction, "squared error gradient");
  Device& device = prediction.device();
  device.kernels().reduction.squared_error_backward(
      device.stream(), prediction.dtype(), prediction.num_elements(), factor,
      prediction.raw_data(), target.raw_data(), dx.raw_data());
  return dx;
}

Tensor CrossEntropySum(const Tensor& logits, const Tensor& labels,
                       double smoothing) {
  const CrossEntropyArguments arguments =
      ArgumentsOf(logits, labels, smoothing);
  const Tensor row_losses =
      Tensor::Empty(logits.device(), {arguments.rows}, DType::kFloat64,
                    MemoryCategory::kWorkspace, "cross entropy");
  Device& device = logits.device();
  const double sum = device.kernels().reduction.cross_entropy(
      device.stream(), arguments, static_cast<double*>(row_losses.raw_data()));
  return ScalarLike(logits, sum, "cross entropy");
}

Tensor CrossEntropyBackward(const Tensor& logits, const Tensor& labels,
                            double factor, double smoothing) {
  const CrossEntropyArguments arguments =
      ArgumentsOf(logits, labels, smoothing);
  Tensor dx = Tensor::EmptyLike(logits, "cross entropy gradient");
  Device& device = logits.device();
  device.kernels().reduction.cross_entropy_backward(device.stream(), arguments,
                                                    factor, dx.raw_data());
  return dx;
}

}  // namespace trireme
