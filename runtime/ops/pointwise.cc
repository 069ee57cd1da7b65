#include "runtime/ops/pointwise.h"

#include "runtime/core/log.h"
#include "runtime/ops/cast.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void CheckSame(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.shape(), b.shape());
  CHECK_EQ(a.dtype(), b.dtype());
}

void CheckSampleRows(const Tensor& x, const Tensor& per_sample) {
  CHECK_EQ(x.rank(), 3);
  CHECK_EQ(per_sample.shape(), (Shape{x.dim(0), x.dim(2)}));
  CHECK_EQ(per_sample.dtype(), x.dtype());
}

}  // namespace

Tensor ActivationForward(Activation activation, const Tensor& x) {
  Tensor y = Tensor::EmptyLike(x, "activation function");
  Device& device = x.device();
  device.kernels().pointwise.activation_forward(device.stream(), x.dtype(),
                                                activation, x.num_elements(),
                                                x.raw_data(), y.raw_data());
  return y;
}

Tensor ActivationBackward(Activation activation, const Tensor& x,
                          const Tensor& grad_out) {
  CheckSame(x, grad_out);
  Tensor dx = Tensor::EmptyLike(x, "activation function gradient");
  Device& device = x.device();
  device.kernels().pointwise.activation_backward(
      device.stream(), x.dtype(), activation, x.num_elements(), x.raw_data(),
      grad_out.raw_data(), dx.raw_data());
  return dx;
}

Tensor SwiGluForward(const Tensor& x) {
  CHECK_EQ(x.dim(-1) % 2, 0);
  Shape shape = x.shape();
  shape.set_dim(-1, x.dim(-1) / 2);
  Tensor y = Tensor::Empty(x.device(), shape, x.dtype(),
                           MemoryCategory::kActivations, "swiglu");
  Device& device = x.device();
  const int64_t width = y.dim(-1);
  device.kernels().pointwise.swiglu_forward(device.stream(), x.dtype(),
                                            y.num_elements() / width, width,
                                            x.raw_data(), y.raw_data());
  return y;
}

Tensor SwiGluBackward(const Tensor& x, const Tensor& grad_out) {
  CHECK_EQ(x.num_elements(), 2 * grad_out.num_elements());
  CHECK_EQ(x.dtype(), grad_out.dtype());
  Tensor dx = Tensor::EmptyLike(x, "swiglu gradient");
  Device& device = x.device();
  const int64_t width = grad_out.dim(-1);
  device.kernels().pointwise.swiglu_backward(
      device.stream(), x.dtype(), grad_out.num_elements() / width, width,
      x.raw_data(), grad_out.raw_data(), dx.raw_data());
  return dx;
}

Tensor Add(const Tensor& a, const Tensor& b) {
  CheckSame(a, b);
  Tensor y = Tensor::EmptyLike(a, "sum");
  Device& device = a.device();
  device.kernels().pointwise.add(device.stream(), a.dtype(), a.num_elements(),
                                 a.raw_data(), b.raw_data(), y.raw_data());
  return y;
}

Tensor Multiply(const Tensor& a, const Tensor& b) {
  CheckSame(a, b);
  Tensor y = Tensor::EmptyLike(a, "product");
  Device& device = a.device();
  device.kernels().pointwise.multiply(device.stream(), a.dtype(),
                                      a.num_elements(), a.raw_data(),
                                      b.raw_data(), y.raw_data());
  return y;
}

Tensor Scale(const Tensor& a, double factor) {
  Tensor y = Tensor::EmptyLike(a, "scaled");
  Device& device = a.device();
  device.kernels().pointwise.scale(device.stream(), a.dtype(), a.num_elements(),
                                   factor, a.raw_data(), y.raw_data());
  return y;
}

void AddInPlace(const Tensor& source, const Tensor& target, double factor) {
  CHECK_EQ(source.num_elements(), target.num_elements());
  Device& device = target.device();
  device.kernels().pointwise.add_in_place(
      device.stream(), source.dtype(), target.dtype(), target.num_elements(),
      factor, source.raw_data(), target.raw_data());
}

void ScaleInPlace(const Tensor& target, double factor) {
  Device& device = target.device();
  device.kernels().pointwise.scale(device.stream(), target.dtype(),
                                   target.num_elements(), factor,
                                   target.raw_data(), target.raw_data());
}

Tensor Cast(const Tensor& x, DType dtype, std::string_view label) {
  Tensor y = Tensor::Empty(x.device(), x.shape(), dtype,
                           MemoryCategory::kActivations, label);
  CastInto(x, y);
  return y;
}

Tensor AddBroadcast(const Tensor& x, const Tensor& b) {
  CHECK_EQ(x.dtype(), b.dtype());
  const int64_t width = b.num_elements();
  CHECK_EQ(x.num_elements() % width, 0) << x.shape() << " + " << b.shape();
  Tensor y = Tensor::EmptyLike(x, "sum");
  Device& device = x.device();
  device.kernels().pointwise.add_broadcast(
      device.stream(), x.dtype(), x.num_elements() / width, width, x.raw_data(),
      b.raw_data(), y.raw_data());
  return y;
}

Tensor GatedResidualForward(const Tensor& x, const Tensor& gate,
                            const Tensor& y) {
  CheckSame(x, y);
  CheckSampleRows(x, gate);
  Tensor out = Tensor::EmptyLike(x, "gated residual");
  Device& device = x.device();
  device.kernels().pointwise.gated_residual_forward(
      device.stream(), x.dtype(), x.dim(0), x.dim(1), x.dim(2), x.raw_data(),
      gate.raw_data(), y.raw_data(), out.raw_data());
  return out;
}

GatedResidualGradients GatedResidualBackward(const Tensor& gate,
                                             const Tensor& y,
                                             const Tensor& grad_out) {
  CheckSame(y, grad_out);
  CheckSampleRows(y, gate);
  GatedResidualGradients result{Tensor::EmptyLike(gate, "gate gradient"),
                                Tensor::EmptyLike(y, "gated gradient")};
  Device& device = y.device();
  device.kernels().pointwise.gated_residual_backward(
      device.stream(), y.dtype(), y.dim(0), y.dim(1), y.dim(2), gate.raw_data(),
      y.raw_data(), grad_out.raw_data(), result.gate.raw_data(),
      result.y.raw_data());
  return result;
}

}  // namespace trireme
