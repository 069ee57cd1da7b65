// A stream of a GPU.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STREAM_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "runtime/device/event.h"
#include "runtime/device/stream.h"
#include "runtime/device/stream_mark.h"

namespace trireme {

// Driven by one thread. Its events may be waited for by any.
class CudaStream final : public Stream {
 public:
  // On the thread's current GPU, before other streams where the GPU can choose
  // (`first`).
  explicit CudaStream(bool first);
  // All work is done by then.
  ~CudaStream() override;

  // Either side may be memory of the host. Copies of pinned memory run beside
  // kernels; others pass through a pinned buffer, with the host's help.
  void CopyBytes(void* to, const void* from, int64_t bytes) override;
  void ZeroBytes(void* to, int64_t bytes) override;
  Event Record() override;
  std::shared_ptr<StreamMark> Mark() override;

  // As Record, for those who hold a lock that what work of the host holds might
  // need when it goes: nothing goes.
  Event RecordPoint();

  cudaStream_t handle() const { return stream_; }
  // Pinned memory of kReadbackBytes where a kernel leaves what the host reads
  // after Synchronize. One kernel's at a time.
  static constexpr size_t kReadbackBytes = size_t{64} << 10;
  std::span<std::byte> readback();

 private:
  class Staging;
  // Work of the host that has run. What it holds goes when the driving thread
  // comes by: CUDA's own thread must not call CUDA.
  struct Ended {
    std::mutex mutex;
    std::vector<std::function<void()>> work;  // guarded by mutex
  };

  void Enqueue(std::function<void()> work) override;
  void DropEnded();

  cudaStream_t stream_ = nullptr;
  std::unique_ptr<Staging> staging_;  // once a copy needs it
  void* readback_ = nullptr;          // once a kernel needs it
  Ended ended_;
};

// Of a stream of a CudaDevice (CHECKed).
cudaStream_t Handle(Stream& stream);
std::span<std::byte> Readback(Stream& stream);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_CUDA_STREAM_H_
