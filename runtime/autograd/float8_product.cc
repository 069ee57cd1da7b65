#include "runtime/autograd/float8_product.h"

#include "runtime/ops/matmul.h"

namespace trireme {

Tensor Float8Product(const Tensor& x, const Tensor& weight, Float8Of of_weight,
                     const Tensor* bias, const AgreeOnScales& agree,
                     std::string_view label) {
  const int64_t rows = x.num_elements() / x.dim(-1);
  const int64_t n = weight.dim(of_weight == Float8Of::kRows ? 0 : 1);
  // Of both, so that ranks agree on them at once. Where tensor cores take the
  // shape, n of them leave those of x aligned.
  const Tensor scales = Tensor::Empty(x.device(), {n + rows}, DType::kFloat32,
                                      MemoryCategory::kWorkspace, label);
  const Tensor of_b = scales.Slice(0, n);
  const Tensor of_x = scales.Slice(n, n + rows);
  Float8Scales(x, Float8Of::kRows, of_x);
  Float8Scales(weight, of_weight, of_b);
  if (agree) agree(scales);
  Shape shape = x.shape();
  shape.set_dim(-1, n);
  return MatMulFloat8(ToFloat8(x, Float8Of::kRows, of_x, label),
                      ToFloat8(weight, of_weight, of_b, label), bias, x.dtype(),
                      label)
      .Reshape(shape);
}

}  // namespace trireme
