// The host processor as a Device, and its dry twin. See device.h.

#ifndef TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_

#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/device/device.h"
#include "runtime/device/host_slabs.h"

namespace trireme {

class CpuDevice final : public Device {
 public:
  enum class Mode { kReal, kDry };

  explicit CpuDevice(int64_t limit_bytes, Mode mode = Mode::kReal);
  ~CpuDevice() override;

  Block Allocate(int64_t bytes, MemoryCategory category,
                 std::string_view label) override;
  void Free(const Block& block) override;
  bool dry() const override;
  absl::Status status() const override;
  MemoryStatistics Statistics() const override;
  void ResetPeak() override;
  std::string name() const override;

 private:
  struct Allocation {
    int64_t bytes;
    MemoryCategory category;
    std::string label;
  };

  // These expect mutex_ to be held.
  void Count(int64_t bytes, MemoryCategory category);
  // A freed block of that size, or a new one; null where the system has none.
  void* Take(int64_t bytes);
  void ReleaseCache();
  absl::Status OutOfMemory(const Allocation& wanted) const;

  const Mode mode_;
  mutable std::mutex mutex_;
  MemoryStatistics statistics_;
  absl::Status status_;
  uint64_t next_id_ = 1;
  std::unordered_map<uint64_t, Allocation> live_;
  HostSlabs slabs_;
  // Freed blocks by their exact size; those in discarded_ hold no memory, only
  // a place in a slab.
  using FreeBlocks = std::map<int64_t, std::vector<void*>>;
  FreeBlocks cache_;
  FreeBlocks discarded_;
  int64_t cached_bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_
