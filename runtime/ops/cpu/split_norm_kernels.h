// CPU kernels behind runtime/ops/split_norm.h. Rows in the compute type, their
// sums in fp64.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

// A rank's part of the rows. Pointers to x, weight, dy, y and dx are of
// `dtype`, statistics of fp64, the weight's gradient of the accumulators' type.
struct SplitNormArguments {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;  // of this rank
  int64_t width = 0;    // of all ranks
  double eps = 0;
  const void* x = nullptr;
  const void* weight = nullptr;
  const double* squares = nullptr;  // [rows]
};

// squares[r] = Σ x².
void SplitNormSquares(const SplitNormArguments& arguments, double* squares);
void SplitNormForward(const SplitNormArguments& arguments, void* y);
// dots[r] = Σ x·weight·dy.
void SplitNormDots(const SplitNormArguments& arguments, const void* dy,
                   double* dots);
void SplitNormBackward(const SplitNormArguments& arguments, const void* dy,
                       const double* dots, void* dx);
void SplitNormWeightGradient(const SplitNormArguments& arguments,
                             const void* dy, void* weight_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_
