// What a source file of kernels (.cu) includes. It is compiled twice: by nvcc
// for GPUs, and by the host's compiler for the emulated one (emulation/), so
// that tests run every kernel where there is no GPU. Both accept CUDA C++ with
// the differences that this header hides:
//
//   - kernels are launched by Launch, not by <<<>>>;
//   - shared memory is KERNEL_SHARED(name, type) or DynamicShared<T>();
//   - loops are unrolled by UNROLL; inline PTX is in ptx.cuh alone.
//
// Launchers are plain functions of the .cu, which a header declares to the
// host's code.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_KERNEL_CUH_
#define TRIREME_RUNTIME_DEVICE_CUDA_KERNEL_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "runtime/device/cuda/cuda_status.h"

#if defined(__CUDACC__)

#define UNROLL _Pragma("unroll")

// A variable of the block, `KERNEL_SHARED(sums, float[32]);`, uninitialised.
#define KERNEL_SHARED(name, ...) \
  __shared__ __align__(16) std::type_identity_t<__VA_ARGS__> name

#else

#include "runtime/device/cuda/emulation/device_functions.h"
#include "runtime/device/cuda/emulation/launch.h"

#define UNROLL

// The type of the lambda tells the places apart.
#define KERNEL_SHARED(name, ...)               \
  std::type_identity_t<__VA_ARGS__>& name =    \
      ::trireme::cuda_emulation::StaticShared< \
          std::type_identity_t<__VA_ARGS__>>([] {})

#endif

namespace trireme {

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // of DynamicShared
  cudaStream_t stream = nullptr;
};

// The block's memory of LaunchConfig::shared_bytes, uninitialised, at a
// multiple of 128 bytes.
template <typename T>
__device__ T* DynamicShared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
#else
  return static_cast<T*>(cuda_emulation::DynamicSharedMemory());
#endif
}

// Gives a grid of `kernel` to the stream. CHECKs that it could be launched.
template <typename... P, typename... A>
void Launch(const LaunchConfig& config, void (*kernel)(P...),
            A&&... arguments) {
  // What a kernel may have without being asked for.
  constexpr size_t kSharedBytes = 48 << 10;
  if (config.shared_bytes > kSharedBytes) {
    CheckCuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(config.shared_bytes)));
  }
  cudaLaunchConfig_t launch{};
  launch.gridDim = config.grid;
  launch.blockDim = config.block;
  launch.dynamicSmemBytes = config.shared_bytes;
  launch.stream = config.stream;
#if defined(__CUDACC__)
  const cudaError_t error = cudaLaunchKernelEx(
      &launch, kernel, static_cast<P>(std::forward<A>(arguments))...);
#else
  const cudaError_t error = cuda_emulation::LaunchGrid(
      launch, kernel, static_cast<P>(std::forward<A>(arguments))...);
#endif
  if (error == cudaSuccess) return;
  const char* name = "a kernel";
  (void)cudaFuncGetName(&name, reinterpret_cast<const void*>(kernel));
  CheckCuda(error, name);
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_KERNEL_CUH_
