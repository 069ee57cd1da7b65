// The GPUs of NVIDIA that a program may use, for those who know nothing of
// CUDA. A program that is built without CUDA has them, too, and none.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_GPUS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_GPUS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/device.h"
#include "runtime/device/kernel_libraries.h"

namespace trireme {

struct CudaGpu {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
  // Ten times the major number and the minor one: 90.
  int compute_capability = 0;
  std::string id;  // the same in all processes of all machines
};

// Those that this process sees, at least one, by index. FailedPrecondition: the
// program was built without CUDA, there is no driver, or the driver is too old
// for the toolkit.
absl::StatusOr<std::vector<CudaGpu>> FindCudaGpus();

// What no process has taken. From then on this one has some, too: only of the
// GPU that it will use.
int64_t FreeBytesOfCudaGpu(int gpu);

// A CudaDevice with its kernels. The GPU exists (CHECKed).
std::unique_ptr<Device> MakeCudaDevice(
    int gpu, int64_t limit_bytes,
    CudaDevice::Memory memory = CudaDevice::Memory::kPlain,
    const KernelLibraries& libraries = kOwnKernels);

// For as long as it lives, GPUs copy ranges of the host's memory by themselves,
// beside kernels, in place of through a stream's buffer.
class PinnedMemory {
 public:
  // Ranges are of whole pages, of which none is in two. ResourceExhausted: the
  // system pins no more; none is pinned then.
  static absl::StatusOr<std::unique_ptr<PinnedMemory>> Pin(
      std::vector<std::span<std::byte>> ranges);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

 private:
  PinnedMemory() = default;

  std::vector<std::span<std::byte>> ranges_;
};

// Counts what the other would hold and compute; needs no GPU. Of a program that
// was built without CUDA there is none (CHECKed).
std::unique_ptr<Device> MakeDryCudaDevice(const KernelLibraries& libraries);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_GPUS_H_
