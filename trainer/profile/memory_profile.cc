#include "trainer/profile/memory_profile.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/cuda/gpus.h"

namespace trireme {
namespace {

constexpr int kCommunicators = 8;
constexpr int64_t kReducedBytes = 1 << 20;

// Gives back what was freed. Ranks that are threads take turns: where another
// allocator is in malloc's place (the sanitizers'), this is what first sets
// malloc up, and that is not made for two threads.
void TrimMalloc() {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  malloc_trim(0);
}

// Without what was freed; 0: unknown.
int64_t ResidentBytes() {
  TrimMalloc();
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  if (!(file >> size >> resident)) return 0;
  return resident * static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
}

// Up to a constant: of a GPU what others have of it counts, too.
int64_t TakenBytes(const ComputeDevice& kind) {
  return kind.kind() == DeviceKind::kCpu ? ResidentBytes()
                                         : -FreeBytesOfCudaGpu(kind.gpu());
}

}  // namespace

ProcessMemory MeasureProcessMemory(const ComputeDevice& kind, Device& device,
                                   CommunicatorFactory& factory) {
  ProcessMemory memory;
  const Tensor data =
      Tensor::Zeros(device, {kReducedBytes / 4}, DType::kFloat32,
                    MemoryCategory::kCommunication, "profile");
  const int64_t before = TakenBytes(kind);
  if (kind.kind() == DeviceKind::kCpu) {
    memory.reserved_bytes =
        std::max<int64_t>(0, before - device.Statistics().current_bytes);
  }
  std::vector<int> everyone(factory.world_size());
  std::iota(everyone.begin(), everyone.end(), 0);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int i = 0; i < kCommunicators; ++i) {
    communicators.push_back(
        factory.Create(everyone, fmt::format("memory profile {}", i)));
    // Some allocate with their first use.
    communicators.back()->AllReduce(data, ReduceOp::kSum, "profile").Wait();
  }
  memory.communicator_bytes =
      std::max<int64_t>(0, TakenBytes(kind) - before) / kCommunicators;
  return memory;
}

}  // namespace trireme
