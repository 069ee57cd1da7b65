// The table of kernels of a CudaDevice.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_

#include "absl/status/status.h"
#include "runtime/device/attention_library.h"
#include "runtime/ops/kernels.h"

namespace trireme {

const Kernels& CudaKernels(AttentionLibrary attention);

// Whether the libraries that they load are there: cuBLASLt. NotFound names it.
absl::Status FindCudaLibraries();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_
