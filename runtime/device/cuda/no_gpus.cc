// What gpus.h is in a program that is built without CUDA.

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/gpus.h"

namespace trireme {

absl::StatusOr<std::vector<CudaGpu>> FindCudaGpus() {
  return FailedPrecondition(
      "no GPU can be used: this program was built without CUDA (./dev build "
      "makes one with it, where there is a toolkit)");
}

int64_t FreeBytesOfCudaGpu(int) {
  LOG(FATAL) << "a GPU of a program that was built without CUDA";
  return 0;
}

std::unique_ptr<Device> MakeCudaDevice(int, int64_t, CudaDevice::Memory,
                                       const KernelLibraries&) {
  LOG(FATAL) << "a GPU of a program that was built without CUDA";
  return nullptr;
}

absl::StatusOr<std::unique_ptr<PinnedMemory>> PinnedMemory::Pin(
    std::vector<std::span<std::byte>>) {
  LOG(FATAL) << "a GPU of a program that was built without CUDA";
  return nullptr;
}

PinnedMemory::~PinnedMemory() = default;

std::unique_ptr<Device> MakeDryCudaDevice(const KernelLibraries&) {
  LOG(FATAL) << "a dry GPU of a program that was built without CUDA";
  return nullptr;
}

}  // namespace trireme
