// The host's memory. Large blocks are cut from slabs that ask the system for
// huge pages: with pages of 4 KiB, training on a processor spends several
// percent of its time on page faults and address translation. Small ones are
// malloc's.

#ifndef TRIREME_RUNTIME_DEVICE_HOST_MEMORY_H_
#define TRIREME_RUNTIME_DEVICE_HOST_MEMORY_H_

#include <cstdint>
#include <vector>

#include "runtime/device/free_ranges.h"
#include "runtime/device/memory_source.h"

namespace trireme {

class HostMemory final : public MemorySource {
 public:
  // Smaller blocks are malloc's.
  static constexpr int64_t kMinSlabBlockBytes = 64 << 10;

  HostMemory() = default;
  ~HostMemory() override;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* Reuse(int64_t bytes) override;
  void* Allocate(int64_t bytes) override;
  void Free(void* block, int64_t bytes) override;
  int64_t kept_bytes() const override { return kept_.bytes(); }
  void GiveBack() override;

  // Of address space in slabs, in use or not.
  int64_t slab_bytes() const;

 private:
  struct Slab {
    char* begin;
    int64_t bytes;
  };

  // Adds a slab to given_back_; false where the system has none.
  bool AddSlab(int64_t bytes);

  std::vector<Slab> slabs_;
  FreeRanges kept_;        // with their pages, at least in part
  FreeRanges given_back_;  // address space alone, until it is written again
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_HOST_MEMORY_H_
