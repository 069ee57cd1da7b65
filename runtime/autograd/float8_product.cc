#include "runtime/autograd/float8_product.h"

#include "runtime/ops/matmul.h"

namespace trireme {
namespace {

QuantizedTensor CodesOf(const Tensor& operand, Float8Operand which,
                        Float8Of vectors, const Float8Delay& delay,
                        std::string_view label) {
  return ToFloat8Whole(operand, vectors, delay.ScaleOf(which),
                       delay.NeededOf(which), label);
}

}  // namespace

Tensor Float8Product(const Tensor& x, Float8Operand of_x, const Tensor& weight,
                     Float8Of of_weight, const Tensor* bias,
                     const Float8Delay& delay, const AgreeOnScales& agree,
                     std::string_view label) {
  const int64_t rows = x.num_elements() / x.dim(-1);
  const int64_t n = weight.dim(of_weight == Float8Of::kRows ? 0 : 1);
  Shape shape = x.shape();
  shape.set_dim(-1, n);
  if (delay.Knows(of_x, Float8Operand::kWeight)) {
    return MatMulFloat8(
               CodesOf(x, of_x, Float8Of::kRows, delay, label),
               CodesOf(weight, Float8Operand::kWeight, of_weight, delay, label),
               bias, x.dtype(), label)
        .Reshape(shape);
  }
  if (delay.active()) {
    RaiseFloat8Needed(x, delay.NeededOf(of_x));
    RaiseFloat8Needed(weight, delay.NeededOf(Float8Operand::kWeight));
  }
  // Of both, so that ranks agree on them at once. Where tensor cores take the
  // shape, n of them leave those of x aligned.
  const Tensor scales = Tensor::Empty(x.device(), {n + rows}, DType::kFloat32,
                                      MemoryCategory::kWorkspace, label);
  const Tensor of_b = scales.Slice(0, n);
  const Tensor of_rows = scales.Slice(n, n + rows);
  Float8Scales(x, Float8Of::kRows, of_rows);
  Float8Scales(weight, of_weight, of_b);
  if (agree) agree(scales);
  return MatMulFloat8(ToFloat8(x, Float8Of::kRows, of_rows, label),
                      ToFloat8(weight, of_weight, of_b, label), bias, x.dtype(),
                      label)
      .Reshape(shape);
}

void AccumulateFloat8Gradient(const Tensor& dy, const Tensor& x,
                              const Float8Delay& delay, const Tensor& gradient,
                              std::string_view label) {
  MatMulFloat8Accumulate(
      CodesOf(dy, Float8Operand::kGradient, Float8Of::kColumns, delay, label),
      CodesOf(x, Float8Operand::kInput, Float8Of::kColumns, delay, label),
      dy.dtype(), gradient, label);
}

}  // namespace trireme
