#include "runtime/device/cuda/cuda_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/cuda/cuda_status.h"

namespace trireme {
namespace {

// Whether a stream has come to the event. CUDA keeps that it has not as the
// thread's last error, which a library would take for one of its own launch.
bool IsDone(cudaEvent_t event) {
  const cudaError_t error = cudaEventQuery(event);
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  CheckCuda(error);
  return true;
}

// A point in a stream.
class Point final : public Event::Work {
 public:
  explicit Point(cudaStream_t stream) {
    CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    CheckCuda(cudaEventRecord(event_, stream));
  }
  ~Point() override { CheckCuda(cudaEventDestroy(event_)); }

  void Wait() override { CheckCuda(cudaEventSynchronize(event_)); }
  bool Test() override { return IsDone(event_); }
  bool OrderBefore(Stream& stream) override {
    auto* const waiting = dynamic_cast<CudaStream*>(&stream);
    if (waiting == nullptr) return false;
    CheckCuda(cudaStreamWaitEvent(waiting->handle(), event_, 0));
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// The same, with the time. Between two events of a GPU it is exact to about
// half a microsecond, in a float: spans are short.
class TimedPoint final : public StreamMark {
 public:
  explicit TimedPoint(cudaStream_t stream) {
    CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDefault));
    CheckCuda(cudaEventRecord(event_, stream));
  }
  ~TimedPoint() override { CheckCuda(cudaEventDestroy(event_)); }

  bool Reached() override { return IsDone(event_); }
  void Wait() override { CheckCuda(cudaEventSynchronize(event_)); }
  double SecondsSince(const StreamMark& earlier) const override {
    float milliseconds = 0;
    CheckCuda(cudaEventElapsedTime(
        &milliseconds, static_cast<const TimedPoint&>(earlier).event_, event_));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Whether CUDA copies the bytes without the host: of a GPU, or pinned.
bool Direct(const void* data) {
  cudaPointerAttributes attributes{};
  CheckCuda(cudaPointerGetAttributes(&attributes, data));
  return attributes.type != cudaMemoryTypeUnregistered;
}

CudaStream& AsCuda(Stream& stream) {
  auto* const cuda = dynamic_cast<CudaStream*>(&stream);
  CHECK(cuda != nullptr) << "a kernel of CUDA on a stream of the host";
  return *cuda;
}

}  // namespace

// A pinned buffer that the stream's copies use in turn.
class CudaStream::Staging {
 public:
  static constexpr int64_t kBytes = 4 << 20;

  Staging() {
    void* block = nullptr;
    CheckCuda(cudaHostAlloc(&block, kBytes, cudaHostAllocDefault));
    data_ = static_cast<char*>(block);
  }
  ~Staging() { CheckCuda(cudaFreeHost(data_)); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  char* data() const { return data_; }

 private:
  char* data_ = nullptr;
};

CudaStream::CudaStream(bool first) : Stream(/*synchronous=*/false) {
  int least = 0;
  int greatest = 0;
  CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CheckCuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                         first ? greatest : least));
}

CudaStream::~CudaStream() {
  CheckCuda(cudaStreamSynchronize(stream_));
  CheckCuda(cudaStreamDestroy(stream_));
  if (readback_ != nullptr) CheckCuda(cudaFreeHost(readback_));
}

std::span<std::byte> CudaStream::readback() {
  if (readback_ == nullptr) {
    CheckCuda(cudaHostAlloc(&readback_, kReadbackBytes, cudaHostAllocDefault));
  }
  return {static_cast<std::byte*>(readback_), kReadbackBytes};
}

void CudaStream::CopyBytes(void* to, const void* from, int64_t bytes) {
  const bool to_direct = Direct(to);
  const bool from_direct = Direct(from);
  if (to_direct && from_direct) {
    CheckCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                              cudaMemcpyDefault, stream_));
    return;
  }
  if (staging_ == nullptr) staging_ = std::make_unique<Staging>();
  char* const staged = staging_->data();
  for (int64_t done = 0; done < bytes; done += Staging::kBytes) {
    const auto size =
        static_cast<size_t>(std::min(bytes - done, Staging::kBytes));
    char* const target = static_cast<char*>(to) + done;
    const char* const source = static_cast<const char*>(from) + done;
    if (from_direct) {
      CheckCuda(
          cudaMemcpyAsync(staged, source, size, cudaMemcpyDefault, stream_));
    } else {
      Enqueue([=] { std::memcpy(staged, source, size); });
    }
    if (to_direct) {
      CheckCuda(
          cudaMemcpyAsync(target, staged, size, cudaMemcpyDefault, stream_));
    } else {
      Enqueue([=] { std::memcpy(target, staged, size); });
    }
  }
}

void CudaStream::ZeroBytes(void* to, int64_t bytes) {
  CheckCuda(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_));
}

Event CudaStream::Record() {
  DropEnded();
  return RecordPoint();
}

std::shared_ptr<StreamMark> CudaStream::Mark() {
  return std::make_shared<TimedPoint>(stream_);
}

Event CudaStream::RecordPoint() {
  return Event(std::make_shared<Point>(stream_));
}

void CudaStream::Enqueue(std::function<void()> work) {
  struct HostWork {
    std::function<void()> run;
    Ended& ended;
  };
  DropEnded();
  CheckCuda(cudaLaunchHostFunc(
      stream_,
      [](void* data) {
        const std::unique_ptr<HostWork> work(static_cast<HostWork*>(data));
        work->run();
        const std::lock_guard lock(work->ended.mutex);
        work->ended.work.push_back(std::move(work->run));
      },
      new HostWork{std::move(work), ended_}));
}

void CudaStream::DropEnded() {
  // They go without the lock: what they free may be anything.
  std::vector<std::function<void()>> dropped;
  {
    const std::lock_guard lock(ended_.mutex);
    dropped.swap(ended_.work);
  }
}

cudaStream_t Handle(Stream& stream) { return AsCuda(stream).handle(); }

std::span<std::byte> Readback(Stream& stream) {
  return AsCuda(stream).readback();
}

}  // namespace trireme
