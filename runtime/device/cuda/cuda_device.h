// A GPU of NVIDIA as a Device: memory cut from slabs of the GPU's, and a stream
// for each resource of a Program. See device.h.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_CUDA_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_CUDA_DEVICE_H_

#include <cstdint>

#include "runtime/device/device.h"

namespace trireme {

class CudaDevice final : public Device {
 public:
  enum class Memory {
    kPlain,
    // NaN until it is written, and again as soon as it is freed: for tests.
    kPoisoned,
  };

  // The thread that makes it drives it, and works with no other GPU. The GPU
  // exists (CHECKed).
  CudaDevice(int gpu, int64_t limit_bytes, const KernelTables& kernels,
             Memory memory = Memory::kPlain);
  ~CudaDevice() override;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_CUDA_DEVICE_H_
