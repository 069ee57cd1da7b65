#include "runtime/device/cuda/gpus.h"

#include <cuda_runtime_api.h>

#include <limits>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/ops/cuda/cuda_kernels.h"
#include "runtime/ops/dry_kernels.h"

namespace trireme {
namespace {

Device::KernelTables CudaKernelTables(AttentionLibrary attention) {
  const auto dry_of = [](AttentionLibrary of) {
    return DryKernels(CudaKernels(of));
  };
  static const Kernels own = dry_of(AttentionLibrary::kOwn);
  static const Kernels with_cudnn = dry_of(AttentionLibrary::kCudnn);
  return {.real = CudaKernels(attention),
          .dry = attention == AttentionLibrary::kCudnn ? with_cudnn : own};
}

}  // namespace

absl::StatusOr<std::vector<CudaGpu>> FindCudaGpus() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count);
      error != cudaSuccess) {
    // The error does not stay: there was no driver to fail.
    (void)cudaGetLastError();
    return FailedPrecondition("no GPU can be used: {}",
                              cudaGetErrorString(error));
  }
  std::vector<CudaGpu> gpus;
  for (int gpu = 0; gpu < count; ++gpu) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, gpu));
    gpus.push_back(
        {.name = properties.name,
         .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem),
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
                                       AttentionLibrary attention) {
  return std::make_unique<CudaDevice>(gpu, limit_bytes,
                                      CudaKernelTables(attention), memory);
}

std::unique_ptr<Device> MakeDryCudaDevice(AttentionLibrary attention) {
  return std::make_unique<Device>(
      "dry cuda", /*on_host=*/false, std::numeric_limits<int64_t>::max(),
      /*memory=*/nullptr, CudaKernelTables(attention));
}

}  // namespace trireme
