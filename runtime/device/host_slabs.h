// Large blocks of the host's memory, packed side by side into slabs that ask
// the system for huge pages: with pages of 4 KiB, training on a processor
// spends several percent of its time on page faults and address translation.

#ifndef TRIREME_RUNTIME_DEVICE_HOST_SLABS_H_
#define TRIREME_RUNTIME_DEVICE_HOST_SLABS_H_

#include <cstdint>
#include <vector>

namespace trireme {

// Not thread-safe.
class HostSlabs {
 public:
  // Smaller blocks are better left to malloc.
  static constexpr int64_t kMinBlockBytes = 64 << 10;

  HostSlabs() = default;
  ~HostSlabs();
  HostSlabs(const HostSlabs&) = delete;
  HostSlabs& operator=(const HostSlabs&) = delete;

  // A block that starts at a page and lives as long as the slabs; null where
  // the system has no memory. Blocks are never taken back: who frees and
  // reuses them keeps a list.
  void* Allocate(int64_t bytes);

  // Gives the block's pages back to the system until it is written again.
  static void Discard(void* block, int64_t bytes);

 private:
  struct Slab {
    char* begin;
    int64_t bytes;
    int64_t used;
  };

  std::vector<Slab> slabs_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_HOST_SLABS_H_
