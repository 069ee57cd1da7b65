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
  SplitNormSquares(ArgumentsOf(x), static_cast<double*>(squares.raw_data()));
  return squares;
}

Tensor SplitNormForward(const SplitNorm& norm, const Tensor& x,
                        const Tensor& weight, const Tensor& squares) {
  CheckWeight(x, weight);
  SplitNormArguments arguments = ArgumentsOf(norm, x, squares);
  arguments.weight = weight.raw_data();
  Tensor y = Tensor::EmptyLike(x, "split norm");
  if (!x.device().dry()) SplitNormForward(arguments, y.raw_data());
  return y;
}

Tensor SplitNormDots(const Tensor& x, const Tensor& weight, const Tensor& dy) {
  CheckWeight(x, weight);
  CheckGradient(x, dy);
  SplitNormArguments arguments = ArgumentsOf(x);
  arguments.weight = weight.raw_data();
  Tensor dots = RowSums(x);
  if (x.device().dry()) return dots;
  SplitNormDots(arguments, dy.raw_data(),
                static_cast<double*>(dots.raw_data()));
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
  SplitNormBackward(arguments, dy.raw_data(),
                    static_cast<const double*>(dots.raw_data()), dx.raw_data());
  return dx;
}

void SplitNormWeightGradient(const SplitNorm& norm, const Tensor& x,
                             const Tensor& squares, const Tensor& dy,
                             const Tensor& weight_gradient) {
  CheckGradient(x, dy);
  CHECK_EQ(weight_gradient.num_elements(), x.dim(-1));
  if (x.device().dry()) return;
  SplitNormWeightGradient(ArgumentsOf(norm, x, squares), dy.raw_data(),
                          weight_gradient.raw_data());
}

}  // namespace trireme
