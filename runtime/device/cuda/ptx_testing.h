// The instructions of ptx.cuh, each alone in a kernel.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_PTX_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_PTX_TESTING_H_

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// sums [16, 8] += a [16, 16] times b [16, 8], of bf16 or fp16; by one warp.
void MultiplyByTensorCores(Stream& stream, DType dtype, const void* a,
                           const void* b, float* sums);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_PTX_TESTING_H_
