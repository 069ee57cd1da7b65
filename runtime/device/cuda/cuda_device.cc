#include "runtime/device/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <memory>

#include "fmt/format.h"
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
