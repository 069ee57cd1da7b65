#include "runtime/device/cuda/emulation/emulated_gpu.h"

#include <dlfcn.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/emulation/grid.h"
#include "runtime/device/cuda/emulation/launch.h"
#include "runtime/device/cuda/emulation/memory.h"
#include "runtime/device/cuda/emulation/refusal.h"

// CUDA's handles.
struct CUstream_st {
  std::shared_ptr<trireme::cuda_emulation::Queue> queue;
};
struct CUevent_st {
  using Time = std::chrono::steady_clock::time_point;
  // The last record of it.
  trireme::cuda_emulation::Point point;
  std::shared_ptr<Time> reached;
  bool timed = true;
};

namespace trireme::cuda_emulation {
namespace {

// Whether this thread runs a host function, which may not call CUDA.
thread_local bool in_host_function = false;

// Of this thread, until it is asked for; only what is no failure is kept, for
// failures end the process.
thread_local cudaError_t last_error = cudaSuccess;

struct Gpu {
  Gpu() {
    const char* const text = std::getenv("TRIREME_EMULATED_GPU");
    const std::string_view schedule = text == nullptr ? "lazy" : text;
    uint64_t seed = 0;
    if (schedule == "eager") {
      scheduler.Use(Schedule::kEager, 0);
    } else if (schedule != "lazy") {
      const auto [end, error] = std::from_chars(
          schedule.data(), schedule.data() + schedule.size(), seed);
      if (error != std::errc() || end != schedule.data() + schedule.size()) {
        Refuse(
            fmt::format("TRIREME_EMULATED_GPU={}, expected lazy, eager or a "
                        "seed",
                        schedule));
      }
      scheduler.Use(Schedule::kRandom, seed);
    }
  }

  Memory memory;
  Scheduler scheduler;
  std::unordered_map<const void*, int> dynamic_shared_bytes;  // by kernel
};

// What TRIREME_EMULATED_CAPABILITY says: 10 times the major number, and the
// minor one.
int ComputeCapability() {
  const char* const text = std::getenv("TRIREME_EMULATED_CAPABILITY");
  if (text == nullptr) return 90;
  int capability = 0;
  const std::string_view digits = text;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), capability);
  if (error != std::errc() || end != digits.data() + digits.size() ||
      capability < 80 || capability > 129) {
    Refuse(fmt::format(
        "TRIREME_EMULATED_CAPABILITY={}, expected 80, 89, 90, 100 or the like",
        digits));
  }
  return capability;
}

// CUDA's functions name no GPU object: a process has one, for one thread at a
// time.
class LockedGpu {
 public:
  explicit LockedGpu(const char* call) : lock_(Mutex(), std::defer_lock) {
    if (in_host_function) {
      Refuse(fmt::format("{} in a host function of a stream", call));
    }
    lock_.lock();
  }
  // The caller's code touches nothing of the device's.
  ~LockedGpu() { Get().memory.Close(); }

  // Blocks until the point is reached, or all that the calling thread's
  // streams were given: other threads may first have to give what it needs.
  void Reach(const Point& point) {
    Block([&] { return Get().scheduler.Reach(point); });
    Scheduler::GoOnAfter(point);
  }
  void ReachOwn() {
    Block([] { return Get().scheduler.ReachOwn(); });
  }
  LockedGpu(const LockedGpu&) = delete;
  LockedGpu& operator=(const LockedGpu&) = delete;

  Gpu* operator->() const { return &Get(); }
  Gpu& operator*() const { return Get(); }

 private:
  static std::mutex& Mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }
  static Gpu& Get() {
    static auto* const gpu = new Gpu;
    return *gpu;
  }
  template <typename F>
  void Block(F&& reached) {
    while (!reached()) {
      Get().memory.Close();
      Get().scheduler.AwaitOthers(lock_);
    }
  }
  std::unique_lock<std::mutex> lock_;
};

Queue& QueueOf(cudaStream_t stream, const char* call) {
  if (stream == nullptr) Refuse(fmt::format("{} on the default stream", call));
  return *stream->queue;
}

std::string NameOf(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) != 0 && info.dli_sname != nullptr) {
    return info.dli_sname;
  }
  return fmt::format("kernel {}", kernel);
}

void Add(Gpu& gpu, cudaStream_t stream, const char* call,
         std::function<void()> work) {
  QueueOf(stream, call).Add([&gpu, work = std::move(work)] {
    gpu.memory.Open();
    work();
  });
  gpu.scheduler.Progress();
}

// A meeting whose operations touch the device's memory.
class OpenMeeting final : public Meeting {
 public:
  OpenMeeting(Memory& memory, std::shared_ptr<Meeting> meeting)
      : memory_(memory), meeting_(std::move(meeting)) {}

  void Place(const Point& before) override { meeting_->Place(before); }
  Step Arrive() override {
    memory_.Open();
    return meeting_->Arrive();
  }
  std::vector<Point> Awaited() const override { return meeting_->Awaited(); }

 private:
  Memory& memory_;
  const std::shared_ptr<Meeting> meeting_;
};

void CheckReachable(const Gpu& gpu, const void* begin, size_t bytes) {
  if (gpu.memory.OnDevice(begin, bytes) || gpu.memory.Pinned(begin, bytes)) {
    return;
  }
  Refuse(
      fmt::format("cudaMemcpyAsync of {} bytes at {}, which are neither in "
                  "one block of the device nor in one that is pinned",
                  bytes, begin));
}

}  // namespace

void UseSchedule(Schedule schedule, uint64_t seed) {
  LockedGpu("UseSchedule")->scheduler.Use(schedule, seed);
}

void Enqueue(cudaStream_t stream, std::function<void()> work) {
  const LockedGpu gpu("Enqueue");
  Add(*gpu, stream, "a library's call", std::move(work));
}

void Enqueue(cudaStream_t stream, std::shared_ptr<Meeting> meeting) {
  const LockedGpu gpu("Enqueue");
  QueueOf(stream, "a library's call")
      .Add(stream->queue,
           std::make_shared<OpenMeeting>(gpu->memory, std::move(meeting)));
  gpu->scheduler.Progress();
}

void CheckOnDevice(const char* what, const void* begin, size_t bytes) {
  if (!LockedGpu(what)->memory.OnDevice(begin, bytes)) {
    Refuse(fmt::format("{}: {} bytes at {} are not in one block of the device",
                       what, bytes, begin));
  }
}

cudaError_t EnqueueGrid(const cudaLaunchConfig_t& launch, const void* kernel,
                        std::function<void()> body) {
  const LockedGpu gpu("a launch");
  const auto found = gpu->dynamic_shared_bytes.find(kernel);
  const size_t allowed = found == gpu->dynamic_shared_bytes.end()
                             ? size_t{48} << 10
                             : static_cast<size_t>(found->second);
  const dim3 grid = launch.gridDim;
  const dim3 block = launch.blockDim;
  if (launch.dynamicSmemBytes > allowed || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.y > 65535 || grid.z > 65535 || block.x == 0 ||
      block.y == 0 || block.z == 0 || block.x * block.y * block.z > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  Add(*gpu, launch.stream, "a launch",
      [&scheduler = gpu->scheduler,
       grid = Grid{NameOf(kernel), launch.gridDim, launch.blockDim,
                   launch.dynamicSmemBytes, std::move(body)}] {
        RunGrid(grid, scheduler.DrawThreadOrder());
      });
  return cudaSuccess;
}

}  // namespace trireme::cuda_emulation

namespace emulation = trireme::cuda_emulation;
using emulation::LockedGpu;

extern "C" {

// Devices.

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = emulation::Memory::kTotalBytes;
  properties->major = emulation::ComputeCapability() / 10;
  properties->minor = emulation::ComputeCapability() % 10;
  properties->multiProcessorCount = 4;
  properties->warpSize = emulation::kWarpSize;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  LockedGpu("cudaDeviceSynchronize").ReachOwn();
  return cudaSuccess;
}

// Memory.

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = LockedGpu("cudaMemGetInfo")->memory.free_bytes();
  *total = emulation::Memory::kTotalBytes;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** block, size_t bytes) {
  *block = LockedGpu("cudaMalloc")->memory.AllocateOnDevice(bytes);
  return *block == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* block) {
  LockedGpu gpu("cudaFree");
  // As the real one, it waits for all work.
  gpu.ReachOwn();
  if (block != nullptr) gpu->memory.FreeOnDevice(block);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** block, size_t bytes, cudaStream_t) {
  *block = LockedGpu("cudaMallocAsync")->memory.AllocateOnDevice(bytes);
  return *block == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeAsync(void* block, cudaStream_t stream) {
  const LockedGpu gpu("cudaFreeAsync");
  emulation::Add(*gpu, stream, "cudaFreeAsync",
                 [&gpu = *gpu, block] { gpu.memory.FreeOnDevice(block); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** block, size_t bytes, unsigned) {
  *block = LockedGpu("cudaHostAlloc")->memory.AllocatePinned(bytes);
  return *block == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* block) {
  LockedGpu gpu("cudaFreeHost");
  gpu.ReachOwn();
  if (block != nullptr) gpu->memory.FreePinned(block);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* begin, size_t bytes, unsigned) {
  return LockedGpu("cudaHostRegister")->memory.Register(begin, bytes)
             ? cudaSuccess
             : cudaErrorHostMemoryAlreadyRegistered;
}
cudaError_t cudaHostUnregister(void* begin) {
  LockedGpu gpu("cudaHostUnregister");
  gpu.ReachOwn();
  gpu->memory.Unregister(begin);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* data) {
  const LockedGpu gpu("cudaPointerGetAttributes");
  *attributes = {};
  attributes->type = gpu->memory.OnDevice(data, 1) ? cudaMemoryTypeDevice
                     : gpu->memory.Pinned(data, 1) ? cudaMemoryTypeHost
                                                   : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind, cudaStream_t stream) {
  const LockedGpu gpu("cudaMemcpyAsync");
  if (bytes == 0) return cudaSuccess;
  emulation::CheckReachable(*gpu, to, bytes);
  emulation::CheckReachable(*gpu, from, bytes);
  emulation::Add(*gpu, stream, "cudaMemcpyAsync",
                 [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes,
                            cudaStream_t stream) {
  const LockedGpu gpu("cudaMemsetAsync");
  if (bytes == 0) return cudaSuccess;
  if (!gpu->memory.OnDevice(to, bytes)) {
    emulation::Refuse("cudaMemsetAsync of what is not in one block");
  }
  emulation::Add(*gpu, stream, "cudaMemsetAsync",
                 [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

// Streams.

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags,
                                         int) {
  const LockedGpu gpu("cudaStreamCreateWithPriority");
  if (flags != cudaStreamNonBlocking) {
    emulation::Refuse("a stream that waits for the default stream");
  }
  *stream = new CUstream_st{gpu->scheduler.NewQueue()};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LockedGpu gpu("cudaStreamDestroy");
  gpu.Reach({stream->queue, stream->queue->added()});
  gpu->scheduler.RemoveQueue(stream->queue);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  LockedGpu gpu("cudaStreamSynchronize");
  const auto added =
      emulation::QueueOf(stream, "cudaStreamSynchronize").added();
  gpu.Reach({stream->queue, added});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned) {
  const LockedGpu gpu("cudaStreamWaitEvent");
  emulation::QueueOf(stream, "cudaStreamWaitEvent").Wait(event->point);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function,
                               void* data) {
  const LockedGpu gpu("cudaLaunchHostFunc");
  auto& memory = gpu->memory;
  emulation::QueueOf(stream, "cudaLaunchHostFunc")
      .Add([&memory, function, data] {
        memory.Close();
        emulation::in_host_function = true;
        function(data);
        emulation::in_host_function = false;
      });
  gpu->scheduler.Progress();
  return cudaSuccess;
}

// Events.

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const LockedGpu gpu("cudaEventDestroy");
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const LockedGpu gpu("cudaEventRecord");
  auto& queue = emulation::QueueOf(stream, "cudaEventRecord");
  auto reached = std::make_shared<CUevent_st::Time>();
  event->reached = reached;
  queue.Add([reached] { *reached = std::chrono::steady_clock::now(); });
  event->point = {stream->queue, queue.added()};
  gpu->scheduler.Progress();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const LockedGpu gpu("cudaEventQuery");
  if (emulation::Scheduler::Reached(event->point)) {
    emulation::Scheduler::GoOnAfter(event->point);
    return cudaSuccess;
  }
  // Whoever asks again finds it done: no device is late for ever.
  gpu->scheduler.Reach(event->point);
  return emulation::last_error = cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LockedGpu gpu("cudaEventSynchronize");
  gpu.Reach(event->point);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin,
                                 cudaEvent_t end) {
  const LockedGpu gpu("cudaEventElapsedTime");
  for (const cudaEvent_t event : {begin, end}) {
    if (!event->timed || event->reached == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
  }
  if (!emulation::Scheduler::Reached(begin->point) ||
      !emulation::Scheduler::Reached(end->point)) {
    return cudaErrorNotReady;
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(*end->reached - *begin->reached)
          .count();
  return cudaSuccess;
}

// Kernels and errors.

cudaError_t cudaFuncSetAttribute(const void* kernel,
                                 cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    emulation::Refuse(
        fmt::format("cudaFuncSetAttribute {}", static_cast<int>(attribute)));
  }
  if (value < 0 || value > 227 << 10) return cudaErrorInvalidValue;
  LockedGpu("cudaFuncSetAttribute")->dynamic_shared_bytes[kernel] = value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetName(const char** name, const void*) {
  *name = "a kernel of the emulated GPU";
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return std::exchange(emulation::last_error, cudaSuccess);
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    default:
      return "another error";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  return cudaGetErrorName(error);
}

}  // extern "C"
