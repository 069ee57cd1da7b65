#include "runtime/device/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <memory>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/cuda_memory.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/cuda_stream.h"

namespace trireme {
namespace {

Device::Streams StreamsOf(int gpu) {
  CheckCuda(cudaSetDevice(gpu));
  Device::Streams streams;
  for (int kind = 0; kind < kNumStreams; ++kind) {
    // Messages that others wait for go before products.
    streams[kind] = std::make_shared<CudaStream>(
        static_cast<StreamKind>(kind) == StreamKind::kCommunication);
  }
  return streams;
}

}  // namespace

CudaGpus FindCudaGpus() {
  CudaGpus found;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count);
      error != cudaSuccess) {
    // Neither stays: no driver was there to fail.
    (void)cudaGetLastError();
    found.status =
        FailedPrecondition("no GPU can be used: {}", cudaGetErrorString(error));
    return found;
  }
  for (int gpu = 0; gpu < count; ++gpu) {
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, gpu));
    size_t free = 0;
    size_t total = 0;
    CheckCuda(cudaSetDevice(gpu));
    CheckCuda(cudaMemGetInfo(&free, &total));
    found.gpus.push_back({.name = properties.name,
                          .memory_bytes = static_cast<int64_t>(total),
                          .free_bytes = static_cast<int64_t>(free)});
  }
  return found;
}

CudaDevice::CudaDevice(int gpu, int64_t limit_bytes,
                       const KernelTables& kernels, Memory memory)
    : Device(fmt::format("cuda:{}", gpu), /*on_host=*/false, limit_bytes,
             std::make_unique<CudaMemory>(*this, memory == Memory::kPoisoned),
             kernels, StreamsOf(gpu)) {}

CudaDevice::~CudaDevice() {
  // Work that has ended lets go of tensors when its stream is asked, and what
  // that gives to streams ends in turn.
  for (int i = 0; i < 2; ++i) {
    Synchronize();
    for (int kind = 0; kind < kNumStreams; ++kind) {
      stream(static_cast<StreamKind>(kind)).Record();
    }
  }
}

}  // namespace trireme
