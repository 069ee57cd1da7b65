// A GPU of NVIDIA as a Device: memory cut from slabs of the GPU's, and a stream
// for each resource of a Program. See device.h.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_CUDA_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace trireme {

struct CudaGpu {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
};

// The GPUs that this process sees, by index; none where there is no driver or
// the driver is too old for the toolkit (`status` says which).
struct CudaGpus {
  std::vector<CudaGpu> gpus;
  absl::Status status;
};
CudaGpus FindCudaGpus();

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
