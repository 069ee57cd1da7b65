// A stream with something to do, for tests of the emulated GPU.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_JOB_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_JOB_TESTING_H_

#include <cuda_runtime_api.h>

#include <cstddef>

#include "runtime/device/cuda/cuda_status.h"

namespace trireme::cuda_emulation {

// A stream and its memory: `count` numbers on the device and as many pinned.
class Job {
 public:
  explicit Job(int count) : count_(count) {
    CheckCuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, 0));
    void* block = nullptr;
    CheckCuda(cudaMalloc(&block, bytes()));
    device_ = static_cast<float*>(block);
    CheckCuda(cudaHostAlloc(&block, bytes(), cudaHostAllocDefault));
    host_ = static_cast<float*>(block);
  }
  ~Job() {
    CheckCuda(cudaFree(device_));
    CheckCuda(cudaFreeHost(host_));
    CheckCuda(cudaStreamDestroy(stream_));
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  cudaStream_t stream() const { return stream_; }
  float* device() const { return device_; }
  float* host() const { return host_; }
  void CopyIn() {
    CheckCuda(
        cudaMemcpyAsync(device_, host_, bytes(), cudaMemcpyDefault, stream_));
  }
  void CopyOut() {
    CheckCuda(
        cudaMemcpyAsync(host_, device_, bytes(), cudaMemcpyDefault, stream_));
  }
  void Synchronize() { CheckCuda(cudaStreamSynchronize(stream_)); }

 private:
  size_t bytes() const { return static_cast<size_t>(count_) * sizeof(float); }

  const int count_;
  cudaStream_t stream_ = nullptr;
  float* device_ = nullptr;
  float* host_ = nullptr;
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_JOB_TESTING_H_
