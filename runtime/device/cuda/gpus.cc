#include "runtime/device/cuda/gpus.h"

#include <cuda_runtime_api.h>

#include <array>
#include <limits>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/ops/cuda/cuda_kernels.h"
#include "runtime/ops/dry_kernels.h"

namespace trireme {
namespace {

Device::KernelTables CudaKernelTables(const KernelLibraries& libraries) {
  static const auto dry = [] {
    std::array<Kernels, KernelLibraries::kChoices> all;
    for (int i = 0; i < KernelLibraries::kChoices; ++i) {
      all[i] = DryKernels(CudaKernels(KernelLibraries::OfChoice(i)));
    }
    return all;
  }();
  return {.real = CudaKernels(libraries), .dry = dry[libraries.choice()]};
}

}  // namespace

absl::StatusOr<std::vector<CudaGpu>> FindCudaGpus() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count);
      error != cudaSuccess) {
    // The error does not stay: there was no driver to fail.
    (void)cudaGetLastError();
    // CUDA says so of a machine without any driver, too.
    return FailedPrecondition(
        "no GPU can be used: {}",
        error == cudaErrorInsufficientDriver
            ? "NVIDIA's driver is not here, or older than this program's CUDA"
            : cudaGetErrorString(error));
  }
  std::vector<CudaGpu> gpus;
  for (int gpu = 0; gpu < count; ++gpu) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, gpu));
    gpus.push_back(
        {.name = properties.name,
         .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem),
         .compute_capability = 10 * properties.major + properties.minor,
         .id = fmt::format("{:02x}", fmt::join(properties.uuid.bytes, ""))});
  }
  if (gpus.empty()) return FailedPrecondition("no GPU can be used: none found");
  if (const absl::Status status = FindCudaLibraries(); !status.ok()) {
    return FailedPrecondition("no GPU can be used: {}", MessageOf(status));
  }
  return gpus;
}

int64_t FreeBytesOfCudaGpu(int gpu) {
  size_t free = 0;
  size_t total = 0;
  CheckCuda(cudaSetDevice(gpu));
  CheckCuda(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

std::unique_ptr<Device> MakeCudaDevice(int gpu, int64_t limit_bytes,
                                       CudaDevice::Memory memory,
                                       const KernelLibraries& libraries) {
  return std::make_unique<CudaDevice>(gpu, limit_bytes,
                                      CudaKernelTables(libraries), memory);
}

absl::StatusOr<std::unique_ptr<PinnedMemory>> PinnedMemory::Pin(
    std::vector<std::span<std::byte>> ranges) {
  std::unique_ptr<PinnedMemory> pinned(new PinnedMemory);
  for (const std::span<std::byte> range : ranges) {
    const cudaError_t error =
        cudaHostRegister(range.data(), range.size(), cudaHostRegisterPortable);
    if (error != cudaSuccess) {
      // The error does not stay.
      (void)cudaGetLastError();
      int64_t before = 0;
      for (const std::span<std::byte> done : pinned->ranges_) {
        before += static_cast<int64_t>(done.size());
      }
      return ResourceExhausted("found {} after {} bytes, in a range of {}",
                               cudaGetErrorString(error), before, range.size());
    }
    pinned->ranges_.push_back(range);
  }
  return pinned;
}

PinnedMemory::~PinnedMemory() {
  for (const std::span<std::byte> range : ranges_) {
    CheckCuda(cudaHostUnregister(range.data()));
  }
}

std::unique_ptr<Device> MakeDryCudaDevice(const KernelLibraries& libraries) {
  return std::make_unique<Device>(
      "dry cuda", /*on_host=*/false, std::numeric_limits<int64_t>::max(),
      /*memory=*/nullptr, CudaKernelTables(libraries));
}

}  // namespace trireme
