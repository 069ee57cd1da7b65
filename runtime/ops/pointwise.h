// Elementwise ops, each one pass over its operands. Floating tensors of one
// dtype; maths in the compute type.

#ifndef TRIREME_RUNTIME_OPS_POINTWISE_H_
#define TRIREME_RUNTIME_OPS_POINTWISE_H_

#include "runtime/device/tensor.h"
#include "runtime/ops/matmul.h"

namespace trireme {

// y = activation(x) and dx = dy·activation'(x).
Tensor ActivationForward(Activation activation, const Tensor& x);
Tensor ActivationBackward(Activation activation, const Tensor& x,
                          const Tensor& grad_out);

// SwiGLU (Shazeer, "GLU variants improve transformer"): x[.., 2n] holds gate
// and up halves; y[.., n] = silu(gate)∘up.
Tensor SwiGluForward(const Tensor& x);
Tensor SwiGluBackward(const Tensor& x, const Tensor& grad_out);

// y = a + b; y = a·b; y = a·factor.
Tensor Add(const Tensor& a, const Tensor& b);
Tensor Multiply(const Tensor& a, const Tensor& b);
Tensor Scale(const Tensor& a, double factor);
// target += source·factor; dtypes may differ (fp32 sums of bf16).
void AddInPlace(const Tensor& source, const Tensor& target,
                double factor = 1.0);
void ScaleInPlace(const Tensor& target, double factor);
// A copy in another dtype.
Tensor Cast(const Tensor& x, DType dtype, std::string_view label = "cast");

// y[.., rows, n] = x[.., rows, n] + b[rows, n] (b's elements repeat over the
// leading dims of x: a bias or a positional table).
Tensor AddBroadcast(const Tensor& x, const Tensor& b);

// The residual of a diffusion transformer block: out = x + gate[b]·y, with x
// and y [b, s, h], gate [b, h].
Tensor GatedResidualForward(const Tensor& x, const Tensor& gate,
                            const Tensor& y);
struct GatedResidualGradients {
  Tensor gate;  // [b, h]
  Tensor y;     // [b, s, h]
};
// dx is grad_out itself.
GatedResidualGradients GatedResidualBackward(const Tensor& gate,
                                             const Tensor& y,
                                             const Tensor& grad_out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_POINTWISE_H_
