#include "runtime/ops/cuda/cudnn_plans.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "runtime/device/cuda/cuda_status.h"

namespace trireme {
namespace {

// Of the tensors that CudnnGraph describes.
constexpr uintptr_t kAlignedBytes = 16;

struct Gpus {
  std::mutex mutex;
  std::unordered_map<int, std::unique_ptr<CudnnGpu>> by_index;
};

Gpus& AllGpus() {
  // Never destroyed: the library's own statics may already be gone at exit.
  static Gpus& gpus = *new Gpus;
  return gpus;
}

}  // namespace

CudnnGpu* CudnnGpu::Current() {
  int index = 0;
  if (cudaGetDevice(&index) != cudaSuccess) {
    (void)cudaGetLastError();
    return nullptr;
  }
  if (!FindCudnn().ok()) return nullptr;
  Gpus& gpus = AllGpus();
  std::lock_guard<std::mutex> lock(gpus.mutex);
  std::unique_ptr<CudnnGpu>& gpu = gpus.by_index[index];
  if (gpu == nullptr) gpu = std::make_unique<CudnnGpu>(index);
  return gpu.get();
}

CudnnGpu::CudnnGpu(int index) : index_(index) {
  cudaDeviceProp properties{};
  CheckCuda(cudaGetDeviceProperties(&properties, index));
  compute_capability_major_ = properties.major;
  const cudnnStatus_t status = cudnnCreate(&handle_);
  CHECK(status == CUDNN_STATUS_SUCCESS)
      << "cudnnCreate: " << cudnnGetErrorString(status);
  properties_ = std::make_unique<CudnnDescriptor>(CudnnGpuProperties(handle_));
}

void CudnnGpu::Run(const CudnnPlan& plan, cudaStream_t stream,
                   std::span<const int64_t> tensors,
                   std::span<void* const> pointers, void* workspace) {
  std::lock_guard<std::mutex> lock(mutex_);
  const cudnnStatus_t status = cudnnSetStream(handle_, stream);
  CHECK(status == CUDNN_STATUS_SUCCESS)
      << "cudnnSetStream: " << cudnnGetErrorString(status);
  plan.Run(handle_, tensors, pointers, workspace);
}

bool AreAlignedForCudnn(std::span<void* const> pointers) {
  return std::all_of(pointers.begin(), pointers.end(), [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % kAlignedBytes == 0;
  });
}

}  // namespace trireme
