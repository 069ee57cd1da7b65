// Kernels of runtime/ops/adamw.h.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_OPTIMIZER_H_
#define TRIREME_RUNTIME_OPS_KERNELS_OPTIMIZER_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// One AdamW step; see runtime/ops/adamw.h. Corrections: 1/(1−β^t).
struct AdamWArguments {
  DType dtype = DType::kFloat32;        // of grad, master, m, v
  DType value_dtype = DType::kFloat32;  // of value
  int64_t n = 0;
  double learning_rate = 0;
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double weight_decay = 0;
  double correction1 = 1;
  double correction2 = 1;
  double gradient_scale = 1;
  bool averages = false;
  double ema_decay = 0;
  const void* grad = nullptr;
  void* master = nullptr;
  void* m = nullptr;
  void* v = nullptr;
  void* value = nullptr;
  void* average = nullptr;  // of the dtype; with `averages`: as ema() after it
};

struct OptimizerKernels {
  void (*adamw)(Stream&, const AdamWArguments&);
  // average += (1 − decay)·(x − average).
  void (*ema)(Stream&, DType, int64_t n, double decay, const void* x,
              void* average);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_OPTIMIZER_H_
