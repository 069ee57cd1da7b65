// Launches of kernels on the emulated GPU, for kernel.cuh.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_LAUNCH_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_LAUNCH_H_

#include <cuda_runtime.h>

#include <functional>
#include <tuple>
#include <type_traits>

#include "runtime/device/cuda/emulation/grid.h"

namespace trireme::cuda_emulation {

// The block's object of `Key`, the type of a lambda at the place that declares
// it.
template <typename T, typename Key>
T& StaticShared(Key) {
  static_assert(
      std::is_trivially_default_constructible_v<std::remove_all_extents_t<T>>);
  static const char key = 0;
  return *static_cast<T*>(StaticSharedMemory(&key, sizeof(T), alignof(T)));
}

// Gives the grid to the launch's stream. `kernel` tells functions apart.
cudaError_t EnqueueGrid(const cudaLaunchConfig_t& launch, const void* kernel,
                        std::function<void()> body);

template <typename... P>
cudaError_t LaunchGrid(const cudaLaunchConfig_t& launch, void (*kernel)(P...),
                       std::type_identity_t<P>... arguments) {
  return EnqueueGrid(
      launch, reinterpret_cast<const void*>(kernel),
      [kernel, values = std::tuple<std::remove_cv_t<P>...>(arguments...)] {
        std::apply(kernel, values);
      });
}

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_LAUNCH_H_
