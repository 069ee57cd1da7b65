// The table of kernels of a CudaDevice.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_

#include "absl/status/status.h"
#include "runtime/device/kernel_libraries.h"
#include "runtime/ops/kernels.h"

namespace trireme {

const Kernels& CudaKernels(const KernelLibraries& libraries);

// Whether the libraries that they load are there: cuBLASLt. NotFound names it.
absl::Status FindCudaLibraries();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDA_KERNELS_H_
