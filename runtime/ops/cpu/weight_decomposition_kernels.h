// CPU kernels behind runtime/ops/weight_decomposition.h. Sums are in fp64.

#ifndef TRIREME_RUNTIME_OPS_CPU_WEIGHT_DECOMPOSITION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_WEIGHT_DECOMPOSITION_KERNELS_H_

#include "runtime/ops/kernels/weight_decomposition.h"

namespace trireme {

void AddRowProductsKernel(DType dtype, int64_t rows, int64_t columns,
                          double factor, const void* a, const void* b,
                          double* sums);
void DirectionFactorsKernel(DType dtype, int64_t n, const void* magnitude,
                            const double* squares, void* scale, void* inverse);
void ScaleColumnsKernel(DType dtype, int64_t rows, int64_t columns,
                        const void* x, const void* factors, void* y);
void MagnitudeGradientKernel(DType dtype, int64_t rows, int64_t columns,
                             const void* x, const void* dy, const void* inverse,
                             void* gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_WEIGHT_DECOMPOSITION_KERNELS_H_
