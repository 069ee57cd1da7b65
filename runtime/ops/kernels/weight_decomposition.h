// Kernels of runtime/ops/weight_decomposition.h. Shapes are checked by the
// caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_WEIGHT_DECOMPOSITION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_WEIGHT_DECOMPOSITION_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// Matrices [rows, columns] are of the dtype; what there is one of for each
// column of the compute type, but squares.
struct WeightDecompositionKernels {
  // sums[rows] += factor·Σ columns a·b.
  void (*add_row_products)(Stream&, DType, int64_t rows, int64_t columns,
                           double factor, const void* a, const void* b,
                           double* sums);
  // inverse[n] = 1/√squares[n], 0 where these are not above 0; scale[n] =
  // magnitude[n]·inverse[n]. The dtype is the compute type.
  void (*direction_factors)(Stream&, DType, int64_t n, const void* magnitude,
                            const double* squares, void* scale, void* inverse);
  // y = x·factors[columns].
  void (*scale_columns)(Stream&, DType, int64_t rows, int64_t columns,
                        const void* x, const void* factors, void* y);
  // gradient[columns] += Σ rows x·dy·inverse[columns].
  void (*magnitude_gradient)(Stream&, DType, int64_t rows, int64_t columns,
                             const void* x, const void* dy, const void* inverse,
                             void* gradient);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_WEIGHT_DECOMPOSITION_H_
