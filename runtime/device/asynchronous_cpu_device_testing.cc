#include "runtime/device/asynchronous_cpu_device_testing.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/asynchronous_stream_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host_memory.h"

namespace trireme {
namespace {

using FreedMemory = AsynchronousCpuDevice::FreedMemory;

size_t Pages(int64_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (static_cast<size_t>(bytes) + page - 1) / page * page;
}

// All ones are a NaN of every floating type.
void Poison(void* block, int64_t bytes) { std::memset(block, 0xFF, bytes); }

// Blocks of whole pages, which nobody may touch once they are free. The last
// so many stay reserved: the system would use the address again.
class ProtectedMemory final : public MemorySource {
 public:
  ~ProtectedMemory() override { GiveBack(); }

  void* Reuse(int64_t) override { return nullptr; }
  void* Allocate(int64_t bytes) override {
    void* const block = mmap(nullptr, Pages(bytes), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? nullptr : block;
  }
  void Free(void* block, int64_t bytes) override {
    // The pages themselves are the system's again.
    CHECK_EQ(madvise(block, Pages(bytes), MADV_DONTNEED), 0);
    CHECK_EQ(mprotect(block, Pages(bytes), PROT_NONE), 0);
    freed_.emplace_back(block, bytes);
    if (freed_.size() > kReserved) Unmap();
  }
  int64_t kept_bytes() const override { return 0; }
  void GiveBack() override {
    while (!freed_.empty()) Unmap();
  }

 private:
  static constexpr size_t kReserved = 2048;

  void Unmap() {
    const auto [block, bytes] = freed_.front();
    CHECK_EQ(munmap(block, Pages(bytes)), 0);
    freed_.pop_front();
  }

  std::deque<std::pair<void*, int64_t>> freed_;
};

// Memory of `inner` in the order of a device's streams.
class StreamOrderedMemory final : public MemorySource {
 public:
  StreamOrderedMemory(Device& device, FreedMemory freed,
                      std::unique_ptr<MemorySource> inner)
      : device_(device), freed_(freed), inner_(std::move(inner)) {}

  void* Reuse(int64_t bytes) override {
    const std::lock_guard lock(mutex_);
    return Poisoned(inner_->Reuse(bytes), bytes);
  }
  void* Allocate(int64_t bytes) override {
    const std::lock_guard lock(mutex_);
    return Poisoned(inner_->Allocate(bytes), bytes);
  }
  void Free(void* block, int64_t bytes) override {
    if (std::this_thread::get_id() == driver_) {
      device_.stream().Launch([=, this] { Release(block, bytes); });
      return;
    }
    // Work that is over let go of it, after the driver did: what the driver had
    // given to any stream by then may still use it. The last to pass frees it.
    const std::shared_ptr<void> release(
        block, [=, this](void*) { Release(block, bytes); });
    for (int kind = 0; kind < kNumStreams; ++kind) {
      device_.stream(static_cast<StreamKind>(kind)).Launch([release] {});
    }
  }
  int64_t kept_bytes() const override {
    const std::lock_guard lock(mutex_);
    return inner_->kept_bytes();
  }
  void GiveBack() override {
    const std::lock_guard lock(mutex_);
    inner_->GiveBack();
  }

 private:
  static void* Poisoned(void* block, int64_t bytes) {
    if (block != nullptr) Poison(block, bytes);
    return block;
  }
  void Release(void* block, int64_t bytes) {
    // Protected memory loses its pages, and may be closed already.
    if (freed_ == FreedMemory::kPoisoned) Poison(block, bytes);
    const std::lock_guard lock(mutex_);
    inner_->Free(block, bytes);
  }

  Device& device_;
  const FreedMemory freed_;
  const std::thread::id driver_ = std::this_thread::get_id();
  mutable std::mutex mutex_;
  const std::unique_ptr<MemorySource> inner_;  // guarded by mutex_
};

std::unique_ptr<MemorySource> SourceOf(FreedMemory freed) {
  if (freed == FreedMemory::kProtected) {
    return std::make_unique<ProtectedMemory>();
  }
  return std::make_unique<HostMemory>();
}

Device::Streams StreamsOf(uint64_t seed, const std::vector<StreamKind>& late) {
  Device::Streams streams;
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i] = std::make_shared<AsynchronousStream>(
        seed + i, std::find(late.begin(), late.end(),
                            static_cast<StreamKind>(i)) != late.end());
  }
  return streams;
}

}  // namespace

AsynchronousCpuDevice::AsynchronousCpuDevice(
    int64_t limit_bytes, uint64_t seed, FreedMemory freed,
    const std::vector<StreamKind>& late)
    : Device(
          "asynchronous cpu", /*on_host=*/true, limit_bytes,
          std::make_unique<StreamOrderedMemory>(*this, freed, SourceOf(freed)),
          CpuKernelTables(), StreamsOf(kNumStreams * seed, late)),
      freed_(freed) {}

AsynchronousCpuDevice::~AsynchronousCpuDevice() {
  // What work lets go of is given to the streams once more.
  Synchronize();
  Synchronize();
}

void AsynchronousCpuDevice::Close(void* block, int64_t bytes, Stream& stream) {
  stream.Launch([block, bytes, freed = freed_] {
    Poison(block, bytes);
    if (freed == FreedMemory::kProtected) {
      CHECK_EQ(mprotect(block, Pages(bytes), PROT_NONE), 0);
    }
  });
}

void AsynchronousCpuDevice::Open(void* block, int64_t bytes, Stream& stream) {
  if (freed_ == FreedMemory::kPoisoned) return;
  stream.Launch([block, bytes] {
    CHECK_EQ(mprotect(block, Pages(bytes), PROT_READ | PROT_WRITE), 0);
  });
}

}  // namespace trireme
