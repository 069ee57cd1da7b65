#include "runtime/device/host_memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"

namespace trireme {
namespace {

constexpr int64_t kPageBytes = 4 << 10;
constexpr int64_t kHugePageBytes = 2 << 20;
constexpr int64_t kSlabBytes = 64 << 20;

int64_t RoundUp(int64_t bytes, int64_t granule) {
  return (bytes + granule - 1) / granule * granule;
}

// Memory that starts at a huge page, or null. Untouched pages take no memory.
char* Map(int64_t bytes) {
  void* mapped = mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped);
  const int64_t before =
      RoundUp(reinterpret_cast<intptr_t>(begin), kHugePageBytes) -
      reinterpret_cast<intptr_t>(begin);
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kHugePageBytes - before);
  // A system without huge pages ignores it.
  madvise(begin + before, bytes, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

HostMemory::~HostMemory() {
  for (const Slab& slab : slabs_) {
    ASAN_UNPOISON_MEMORY_REGION(slab.begin, slab.bytes);
    munmap(slab.begin, slab.bytes);
  }
}

int64_t HostMemory::slab_bytes() const {
  int64_t bytes = 0;
  for (const Slab& slab : slabs_) bytes += slab.bytes;
  return bytes;
}

bool HostMemory::AddSlab(int64_t bytes) {
  const int64_t rounded = std::max(kSlabBytes, RoundUp(bytes, kHugePageBytes));
  char* const begin = Map(rounded);
  if (begin == nullptr) return false;
  slabs_.push_back({begin, rounded});
  given_back_.Add(begin, rounded);
  return true;
}

void* HostMemory::Reuse(int64_t bytes) {
  CHECK_GT(bytes, 0);
  if (bytes < kMinSlabBlockBytes) {
    return std::aligned_alloc(Arena::kAlignment, bytes);
  }
  char* const block = kept_.Take(RoundUp(bytes, kPageBytes));
  if (block != nullptr) ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  return block;
}

void* HostMemory::Allocate(int64_t bytes) {
  if (void* const block = Reuse(bytes); block != nullptr) return block;
  if (bytes < kMinSlabBlockBytes) return nullptr;
  const int64_t rounded = RoundUp(bytes, kPageBytes);
  char* block = given_back_.Take(rounded);
  if (block == nullptr) {
    // Neighbours of both kinds may make a range that is long enough.
    for (const auto& [begin, size] : given_back_.ranges()) {
      kept_.Add(begin, size);
    }
    given_back_.Clear();
    block = kept_.Take(rounded);
  }
  if (block == nullptr && AddSlab(rounded)) block = given_back_.Take(rounded);
  if (block != nullptr) ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  return block;
}

void HostMemory::Free(void* block, int64_t bytes) {
  if (bytes < kMinSlabBlockBytes) {
    std::free(block);
    return;
  }
  ASAN_POISON_MEMORY_REGION(block, bytes);
  kept_.Add(static_cast<char*>(block), RoundUp(bytes, kPageBytes));
}

void HostMemory::GiveBack() {
  for (const auto& [begin, bytes] : kept_.ranges()) {
    CHECK_EQ(madvise(begin, bytes, MADV_DONTNEED), 0);
    given_back_.Add(begin, bytes);
  }
  kept_.Clear();
}

}  // namespace trireme
