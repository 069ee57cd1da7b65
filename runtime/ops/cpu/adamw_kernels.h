// CPU kernels behind runtime/ops/adamw.h.

#ifndef TRIREME_RUNTIME_OPS_CPU_ADAMW_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_ADAMW_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/optimizer.h"

namespace trireme {

void AdamWKernel(const AdamWArguments& arguments);

// average += (1 − decay)·(x − average).
void EmaKernel(DType dtype, int64_t n, double decay, const void* x,
               void* average);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ADAMW_KERNELS_H_
