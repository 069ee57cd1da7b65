// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization") and
// the exponential moving average of the weights, each one fused pass, or both.
//
//   g' = g·gradient_scale (clipping);  m = β1·m + (1−β1)·g';
//   v = β2·v + (1−β2)·g'²;  θ −= lr·( m/(1−β1^t) / (√(v/(1−β2^t)) + eps)
//                                     + weight_decay·θ )

#ifndef TRIREME_RUNTIME_OPS_ADAMW_H_
#define TRIREME_RUNTIME_OPS_ADAMW_H_

#include "runtime/device/tensor.h"

namespace trireme {

struct AdamWOptions {
  double learning_rate = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  int64_t step = 1;  // t, from 1
  double gradient_scale = 1.0;
  double ema_decay = 0.0;  // of an average
};

// One parameter. master, m and v: fp32 (fp64 for fp64 parameters); grad: the
// same; value: the compute copy that forward reads (bf16, fp32 or fp64),
// written from the new master; it may share master's storage. `average`, unless
// undefined: as EmaStep(options.ema_decay, master, average) after it, to the
// bit, which on the host spares one reading of the master.
void AdamWStep(const AdamWOptions& options, const Tensor& grad,
               const Tensor& master, const Tensor& m, const Tensor& v,
               const Tensor& value, const Tensor& average = {});

// average = decay·average + (1 − decay)·master, all in the master's dtype.
void EmaStep(double decay, const Tensor& master, const Tensor& average);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ADAMW_H_
