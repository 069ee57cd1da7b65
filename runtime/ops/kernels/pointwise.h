// Kernels of runtime/ops/pointwise.h. Pointers are to elements of the dtype.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_POINTWISE_H_
#define TRIREME_RUNTIME_OPS_KERNELS_POINTWISE_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
#include "runtime/ops/activation.h"

namespace trireme {

struct PointwiseKernels {
  void (*activation_forward)(Stream&, DType, Activation, int64_t n,
                             const void* x, void* y);
  void (*activation_backward)(Stream&, DType, Activation, int64_t n,
                              const void* x, const void* dy, void* dx);
  // Rows of 2·width (x, dx) and width (y, dy).
  void (*swiglu_forward)(Stream&, DType, int64_t rows, int64_t width,
                         const void* x, void* y);
  void (*swiglu_backward)(Stream&, DType, int64_t rows, int64_t width,
                          const void* x, const void* dy, void* dx);
  void (*add)(Stream&, DType, int64_t n, const void* a, const void* b, void* y);
  void (*multiply)(Stream&, DType, int64_t n, const void* a, const void* b,
                   void* y);
  void (*scale)(Stream&, DType, int64_t n, double factor, const void* x,
                void* y);
  void (*add_in_place)(Stream&, DType source_dtype, DType target_dtype,
                       int64_t n, double factor, const void* source,
                       void* target);
  void (*cast)(Stream&, DType from, DType to, int64_t n, const void* x,
               void* y);
  // y[rows, width] = x[rows, width] + b[width].
  void (*add_broadcast)(Stream&, DType, int64_t rows, int64_t width,
                        const void* x, const void* b, void* y);
  // x, y [batch, tokens, width]; gate [batch, width].
  void (*gated_residual_forward)(Stream&, DType, int64_t batch, int64_t tokens,
                                 int64_t width, const void* x, const void* gate,
                                 const void* y, void* out);
  void (*gated_residual_backward)(Stream&, DType, int64_t batch, int64_t tokens,
                                  int64_t width, const void* gate,
                                  const void* y, const void* dout, void* dgate,
                                  void* dy);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_POINTWISE_H_
