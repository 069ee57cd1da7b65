#include "runtime/ops/split_norm.h"

#include "runtime/core/log.h"
#include "runtime/ops/cpu/split_norm_kernels.h"

namespace trireme {
namespace {

SplitNormArguments ArgumentsOf(const Tensor& x) {
  SplitNormArguments arguments;
  arguments.dtype = x.dtype();
  arguments.columns = x.dim(-1);
  arguments.rows = x.num_elements() / x.dim(-1);
  arguments.x = x.raw_data();
  return arguments;
}

SplitNormArguments ArgumentsOf(const SplitNorm& norm, const Tensor& x,
                               const Tensor& squares) {
  SplitNormArguments arguments = ArgumentsOf(x);
  CHECK_EQ(squares.num_elements(), arguments.rows);
  CHECK_GE(norm.width, arguments.columns);
  arguments.width = norm.width;
  arguments.eps = norm.eps;
  arguments.squares = static_cast<const double*>(squares.raw_data());
  return arguments;
}

Tensor RowSums(const Tensor& x) {
  return Tensor::Empty(x.device(), {x.num_elements() / x.dim(-1)},
                       DType::kFloat64, MemoryCategory::kActivations,
                       "row sums");
}

void CheckWeight(const Tensor& x, const Tensor& weight) {
  CHECK_EQ(weight.num_elements(), x.dim(-1));
  CHECK_EQ(weight.dtype(), x.dtype());
}

void CheckGradient(const Tensor& x, const Tensor& dy) {
  CHECK_EQ(dy.shape(), x.shape());
  CHECK_EQ(dy.dtype(), x.dtype());
}

}  // namespace

Tensor SplitNormSquares(const Tensor& x) {
  Tensor squares = RowSums(x);
  if (x.device().dry()) return squares;
  x.device().stream().Launch([arguments = ArgumentsOf(x),
                              sums = static_cast<double*>(squares.raw_data())] {
    SplitNormSquares(arguments, sums);
  });
  return squares;
}

Tensor SplitNormForward(const SplitNorm& norm, const Tensor& x,
                        const Tensor& weight, const Tensor& squares) {
  CheckWeight(x, weight);
  SplitNormArguments arguments = ArgumentsOf(norm, x, squares);
  arguments.weight = weight.raw_data();
  Tensor y = Tensor::EmptyLike(x, "split norm");
  if (x.device().dry()) return y;
  x.device().stream().Launch(
      [arguments, out = y.raw_data()] { SplitNormForward(arguments, out); });
  return y;
}

Tensor SplitNormDots(const Tensor& x, const Tensor& weight, const Tensor& dy) {
  CheckWeight(x, weight);
  CheckGradient(x, dy);
  SplitNormArguments arguments = ArgumentsOf(x);
  arguments.weight = weight.raw_data();
  Tensor dots = RowSums(x);
  if (x.device().dry()) return dots;
  x.device().stream().Launch([arguments, gradient = dy.raw_data(),
                              sums = static_cast<double*>(dots.raw_data())] {
    SplitNormDots(arguments, gradient, sums);
  });
  return dots;
}

Tensor SplitNormBackward(const SplitNorm& norm, const Tensor& x,
                         const Tensor& weight, const Tensor& squares,
                         const Tensor& dy, const Tensor& dots) {
  CheckWeight(x, weight);
  CheckGradient(x, dy);
  SplitNormArguments arguments = ArgumentsOf(norm, x, squares);
  arguments.weight = weight.raw_data();
  Tensor dx = Tensor::EmptyLike(x, "split norm gradient");
  if (x.device().dry()) return dx;
  x.device().stream().Launch(
      [arguments, gradient = dy.raw_data(),
       sums = static_cast<const double*>(dots.raw_data()),
       out = dx.raw_data()] {
        SplitNormBackward(arguments, gradient, sums, out);
      });
  return dx;
}

void SplitNormWeightGradient(const SplitNorm& norm, const Tensor& x,
                             const Tensor& squares, const Tensor& dy,
                             const Tensor& weight_gradient) {
  CheckGradient(x, dy);
  CHECK_EQ(weight_gradient.num_elements(), x.dim(-1));
  if (x.device().dry()) return;
  x.device().stream().Launch([arguments = ArgumentsOf(norm, x, squares),
                              gradient = dy.raw_data(),
                              out = weight_gradient.raw_data()] {
    SplitNormWeightGradient(arguments, gradient, out);
  });
}

}  // namespace trireme
