// Errors of the CUDA runtime. After the first, a device is of no more use: like
// a failed CHECK they end the process, with CUDA's name for what happened.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STATUS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include <source_location>

namespace trireme {

// `what` names the work in the error, where the place does not.
void CheckCuda(cudaError_t error, const char* what = "",
               std::source_location place = std::source_location::current());

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STATUS_H_
