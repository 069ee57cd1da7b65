#include "runtime/ops/split_norm.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

HeadsLayout LayoutOf(const HeadsView& view) {
  return {view.offset, view.row_stride};
}

SplitNormArguments ArgumentsOf(const HeadsView& x) {
  CHECK_LE(x.head_dim, kMaxHeadDim);
  SplitNormArguments arguments;
  arguments.dtype = x.tensor.dtype();
  arguments.rows = x.batch * x.tokens;
  arguments.columns = x.heads * x.head_dim;
  arguments.x = x.tensor.raw_data();
  arguments.x_layout = LayoutOf(x);
  arguments.tokens = x.tokens;
  arguments.head_dim = x.head_dim;
  return arguments;
}

SplitNormArguments ArgumentsOf(const SplitNorm& norm, const HeadsView& x) {
  SplitNormArguments arguments = ArgumentsOf(x);
  CHECK_GE(norm.width, arguments.columns);
  arguments.width = norm.width;
  arguments.eps = norm.eps;
  if (norm.rope != nullptr) {
    CHECK_EQ(x.head_dim % 2, 0) << "channels to rotate in pairs";
    CHECK_EQ(norm.rope->cos.shape(), (Shape{x.tokens, x.head_dim / 2}));
    arguments.cos = norm.rope->cos.raw_data();
    arguments.sin = norm.rope->sin.raw_data();
  }
  return arguments;
}

double* SumsOf(const SplitNormArguments& arguments, const Tensor& sums) {
  CHECK_EQ(sums.num_elements(), arguments.rows);
  CHECK_EQ(sums.dtype(), DType::kFloat64);
  return static_cast<double*>(sums.raw_data());
}

const void* WeightOf(const SplitNormArguments& arguments,
                     const Tensor& weight) {
  CHECK_EQ(weight.num_elements(), arguments.columns);
  CHECK_EQ(weight.dtype(), arguments.dtype);
  return weight.raw_data();
}

void CheckLike(const HeadsView& x, const HeadsView& other) {
  CHECK(x.batch == other.batch && x.tokens == other.tokens &&
        x.heads == other.heads && x.head_dim == other.head_dim);
  CHECK_EQ(x.tensor.dtype(), other.tensor.dtype());
}

const SplitNormKernels& KernelsOf(const HeadsView& x) {
  return x.tensor.device().kernels().split_norm;
}

Stream& StreamOf(const HeadsView& x) { return x.tensor.device().stream(); }

}  // namespace

void SplitNormSquares(const HeadsView& x, const Tensor& squares) {
  const SplitNormArguments arguments = ArgumentsOf(x);
  KernelsOf(x).squares(StreamOf(x), arguments, SumsOf(arguments, squares));
}

void SplitNormForward(const SplitNorm& norm, const HeadsView& x,
                      const Tensor& weight, const Tensor& squares,
                      const HeadsView& y) {
  CheckLike(x, y);
  SplitNormArguments arguments = ArgumentsOf(norm, x);
  arguments.weight = WeightOf(arguments, weight);
  arguments.squares = SumsOf(arguments, squares);
  KernelsOf(x).forward(StreamOf(x), arguments, y.tensor.raw_data(),
                       LayoutOf(y));
}

void SplitNormDots(const SplitNorm& norm, const HeadsView& x,
                   const Tensor& weight, const HeadsView& dy,
                   const Tensor& dots) {
  CheckLike(x, dy);
  SplitNormArguments arguments = ArgumentsOf(norm, x);
  arguments.weight = WeightOf(arguments, weight);
  KernelsOf(x).dots(StreamOf(x), arguments, dy.tensor.raw_data(), LayoutOf(dy),
                    SumsOf(arguments, dots));
}

void SplitNormBackward(const SplitNorm& norm, const HeadsView& x,
                       const Tensor& weight, const Tensor& squares,
                       const HeadsView& dy, const Tensor& dots,
                       const HeadsView& dx) {
  CheckLike(x, dy);
  CheckLike(x, dx);
  SplitNormArguments arguments = ArgumentsOf(norm, x);
  arguments.weight = WeightOf(arguments, weight);
  arguments.squares = SumsOf(arguments, squares);
  KernelsOf(x).backward(StreamOf(x), arguments, dy.tensor.raw_data(),
                        LayoutOf(dy), SumsOf(arguments, dots),
                        dx.tensor.raw_data(), LayoutOf(dx));
}

void SplitNormWeightGradient(const SplitNorm& norm, const HeadsView& x,
                             const Tensor& squares, const HeadsView& dy,
                             const Tensor& weight_gradient) {
  CheckLike(x, dy);
  SplitNormArguments arguments = ArgumentsOf(norm, x);
  CHECK_EQ(weight_gradient.num_elements(), arguments.columns);
  arguments.squares = SumsOf(arguments, squares);
  KernelsOf(x).weight_gradient(StreamOf(x), arguments, dy.tensor.raw_data(),
                               LayoutOf(dy), weight_gradient.raw_data());
}

}  // namespace trireme
