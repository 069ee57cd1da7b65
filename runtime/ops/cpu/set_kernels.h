// CPU kernels behind runtime/ops/set_norm.h and runtime/ops/set_loss.h. Sums
// are in fp64 and in an order that no number of threads changes.

#ifndef TRIREME_RUNTIME_OPS_CPU_SET_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_SET_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

struct SetNormArguments {
  DType dtype = DType::kFloat32;
  int64_t sets = 0;
  int64_t rows = 0;  // of a set
  int64_t channels = 0;
  int64_t groups = 0;
  const void* x = nullptr;          // [sets, rows, channels]
  const int32_t* counts = nullptr;  // [sets]
  const void* weight = nullptr;     // [channels]
};

struct SetNormGradients {
  const double* moments = nullptr;  // [sets, groups, 2]
  const void* grad_out = nullptr;   // as x
  void* x = nullptr;
  // += in the compute type; null: not asked for.
  void* weight = nullptr;
  void* bias = nullptr;
};

struct SetLossArguments {
  DType dtype = DType::kFloat32;
  int64_t sets = 0;
  int64_t rows = 0;
  int64_t channels = 0;
  double limit = 1;
  const void* values = nullptr;  // [sets, rows, channels]
  const void* targets = nullptr;
  const int32_t* kinds = nullptr;  // [sets, rows]
  int32_t first_kind = 0;
  int32_t last_kind = 0;
};

void SetNormKernel(const SetNormArguments& arguments, const void* bias,
                   double eps, double* moments, void* out);
void SetNormBackwardKernel(const SetNormArguments& arguments,
                           const SetNormGradients& gradients);
double SetLossKernel(const SetLossArguments& arguments);
void SetLossBackwardKernel(const SetLossArguments& arguments, double factor,
                           void* values_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SET_KERNELS_H_
