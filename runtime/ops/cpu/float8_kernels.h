// CPU kernels behind runtime/ops/float8.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_FLOAT8_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_FLOAT8_KERNELS_H_

#include "runtime/ops/kernels/float8.h"

namespace trireme {

void Float8ScalesKernel(const Float8Vectors& vectors, const void* matrix,
                        void* scales);
void QuantizeFloat8Kernel(const Float8Vectors& vectors, const void* matrix,
                          const void* scales, void* codes);
void QuantizeFloat8WholeKernel(const Float8Vectors& vectors, const void* matrix,
                               const void* scale, void* needed, void* codes);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_FLOAT8_KERNELS_H_
