// Where the blocks of an arena come from: the host's memory, a GPU's, a pinned
// part of the host's.

#ifndef TRIREME_RUNTIME_DEVICE_MEMORY_SOURCE_H_
#define TRIREME_RUNTIME_DEVICE_MEMORY_SOURCE_H_

#include <cstdint>

namespace trireme {

// Called under the arena's lock.
class MemorySource {
 public:
  virtual ~MemorySource() = default;

  // A block aligned to Arena::kAlignment, of a size that is a multiple of it:
  // of kept memory alone, or else of the system's; null where there is none.
  virtual void* Reuse(int64_t bytes) = 0;
  virtual void* Allocate(int64_t bytes) = 0;
  // `bytes` as the block was asked for. The memory is kept for blocks to come.
  virtual void Free(void* block, int64_t bytes) = 0;

  // Bytes that are kept, and how they are given back to the system.
  virtual int64_t kept_bytes() const = 0;
  virtual void GiveBack() = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_MEMORY_SOURCE_H_
