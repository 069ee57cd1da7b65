// Kernels of runtime/ops/reduction.h. Those that return a number wait for it; a
// dry device's is 0.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_REDUCTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_REDUCTION_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

enum class ScalarReduction { kSum, kSumOfSquares, kMaxAbs, kNonFinite };

struct CrossEntropyArguments {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t classes = 0;
  const void* logits = nullptr;
  const int32_t* labels = nullptr;
  // Of a row's probability, what is spread evenly over all classes.
  double smoothing = 0;
};

struct ReductionKernels {
  // kNonFinite counts.
  double (*reduce)(Stream&, DType, ScalarReduction, int64_t n, const void* x);
  // sums[i] of elements [i·block, min((i + 1)·block, n)), on the host.
  void (*block_sums_of_squares)(Stream&, DType, int64_t n, int64_t block,
                                const void* x, double* sums);
  void (*softmax_forward)(Stream&, DType, int64_t rows, int64_t width,
                          const void* x, void* y);
  void (*softmax_backward)(Stream&, DType, int64_t rows, int64_t width,
                           const void* y, const void* dy, void* dx);
  // out[batch, width] = Σ over tokens.
  void (*sum_tokens)(Stream&, DType, int64_t batch, int64_t tokens,
                     int64_t width, const void* x, void* out);
  double (*squared_error)(Stream&, DType, int64_t n, const void* a,
                          const void* b);
  // out = 2·(a − b)·factor.
  void (*squared_error_backward)(Stream&, DType, int64_t n, double factor,
                                 const void* a, const void* b, void* out);
  // The sum over rows, added in their order. row_losses: [rows], overwritten.
  double (*cross_entropy)(Stream&, const CrossEntropyArguments&,
                          double* row_losses);
  void (*cross_entropy_backward)(Stream&, const CrossEntropyArguments&,
                                 double factor, void* gradient);
  // out[columns] += Σ over rows of x[rows, columns]; out in the compute type.
  void (*add_column_sums)(Stream&, DType, int64_t rows, int64_t columns,
                          const void* x, void* out);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_REDUCTION_H_
