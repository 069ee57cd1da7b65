// CPU kernels behind runtime/ops/copy.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_COPY_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_COPY_KERNELS_H_

#include <cstdint>
#include <span>

#include "runtime/ops/kernels/copy.h"

namespace trireme {

// A null source writes zeros.
void CopyStridedKernel(DType dtype, const StridedCopy& copy, const void* from,
                       void* to);
void CopyRunsKernel(DType dtype, std::span<const ElementRun> runs,
                    const void* from, void* to);
void FillKernel(DType dtype, int64_t n, double value, void* to);
void AddOffsetKernel(int64_t n, int32_t offset, const int32_t* x, int32_t* y);
void MaskedFillKernel(int64_t n, int32_t value, const int32_t* x,
                      const uint8_t* mask, int32_t* y);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_COPY_KERNELS_H_
