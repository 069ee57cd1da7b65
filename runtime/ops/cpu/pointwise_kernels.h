// CPU kernels behind runtime/ops/pointwise.h. Pointers are to elements of
// `dtype`; shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_POINTWISE_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_POINTWISE_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/pointwise.h"

namespace trireme {

void ActivationForwardKernel(DType dtype, Activation activation, int64_t n,
                             const void* x, void* y);
void ActivationBackwardKernel(DType dtype, Activation activation, int64_t n,
                              const void* x, const void* dy, void* dx);
// Rows of 2·width (x, dx) and width (y, dy).
void SwiGluForwardKernel(DType dtype, int64_t rows, int64_t width,
                         const void* x, void* y);
void SwiGluBackwardKernel(DType dtype, int64_t rows, int64_t width,
                          const void* x, const void* dy, void* dx);
void AddKernel(DType dtype, int64_t n, const void* a, const void* b, void* y);
void MultiplyKernel(DType dtype, int64_t n, const void* a, const void* b,
                    void* y);
void ScaleKernel(DType dtype, int64_t n, double factor, const void* x, void* y);
void AddInPlaceKernel(DType source_dtype, DType target_dtype, int64_t n,
                      double factor, const void* source, void* target);
void CastKernel(DType from, DType to, int64_t n, const void* x, void* y);
// y[rows, width] = x[rows, width] + b[width].
void AddBroadcastKernel(DType dtype, int64_t rows, int64_t width, const void* x,
                        const void* b, void* y);
void GatedResidualForwardKernel(DType dtype, int64_t batch, int64_t tokens,
                                int64_t width, const void* x, const void* gate,
                                const void* y, void* out);
void GatedResidualBackwardKernel(DType dtype, int64_t batch, int64_t tokens,
                                 int64_t width, const void* gate, const void* y,
                                 const void* dout, void* dgate, void* dy);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_POINTWISE_KERNELS_H_
