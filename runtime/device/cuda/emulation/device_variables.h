// The variables that CUDA C++ predefines in kernels, of the thread that runs.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_VARIABLES_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_VARIABLES_H_

#include <cuda_runtime.h>

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_VARIABLES_H_
