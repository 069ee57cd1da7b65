// CPU kernels behind runtime/ops/reduction.h.

#ifndef TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/reduction.h"

namespace trireme {

// Over n elements: lanes in the compute type within blocks of 4096, blocks in
// fp64, in order. kNonFinite counts.
double ReduceKernel(DType dtype, ScalarReduction reduction, int64_t n,
                    const void* x);

// sums[i] of elements [i * block, min((i + 1) * block, n)), lanes in the
// compute type.
void BlockSumsOfSquaresKernel(DType dtype, int64_t n, int64_t block,
                              const void* x, double* sums);

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

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_REDUCTION_KERNELS_H_
