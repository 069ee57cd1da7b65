// CPU kernels behind runtime/ops/reduction.h and runtime/optim/adamw.h.

#ifndef TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

enum class ScalarReduction { kSum, kSumOfSquares, kMaxAbs, kNonFinite };

// Over n elements: lanes in the compute type within blocks of 4096, blocks in
// fp64, in order. kNonFinite counts.
double ReduceKernel(DType dtype, ScalarReduction reduction, int64_t n,
                    const void* x);

void SoftmaxForwardKernel(DType dtype, int64_t rows, int64_t width,
                          const void* x, void* y);
void SoftmaxBackwardKernel(DType dtype, int64_t rows, int64_t width,
                           const void* y, const void* dy, void* dx);
// out[batch, width] = Σ over tokens.
void SumTokensKernel(DType dtype, int64_t batch, int64_t tokens, int64_t width,
                     const void* x, void* out);
double SquaredErrorKernel(DType dtype, int64_t n, const void* a, const void* b);
// out = 2·(a − b)·factor.
void SquaredErrorBackwardKernel(DType dtype, int64_t n, double factor,
                                const void* a, const void* b, void* out);

// One AdamW step; see runtime/optim/adamw.h. Corrections: 1/(1−β^t).
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
  const void* grad = nullptr;
  void* master = nullptr;
  void* m = nullptr;
  void* v = nullptr;
  void* value = nullptr;
};
void AdamWKernel(const AdamWArguments& arguments);

// average += (1 − decay)·(x − average).
void EmaKernel(DType dtype, int64_t n, double decay, const void* x,
               void* average);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_
