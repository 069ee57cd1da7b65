#include "runtime/device/host_slabs.h"

#include <sys/mman.h>

#include <algorithm>

#include "runtime/core/log.h"

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

HostSlabs::~HostSlabs() {
  for (const Slab& slab : slabs_) munmap(slab.begin, slab.bytes);
}

void* HostSlabs::Allocate(int64_t bytes) {
  CHECK_GT(bytes, 0);
  const int64_t rounded = RoundUp(bytes, kPageBytes);
  // First fit: what a large block left over serves small ones.
  auto slab = std::find_if(slabs_.begin(), slabs_.end(), [&](const Slab& s) {
    return s.bytes - s.used >= rounded;
  });
  if (slab == slabs_.end()) {
    const int64_t slab_bytes =
        std::max(kSlabBytes, RoundUp(rounded, kHugePageBytes));
    char* begin = Map(slab_bytes);
    if (begin == nullptr) return nullptr;
    slabs_.push_back({begin, slab_bytes, 0});
    slab = slabs_.end() - 1;
  }
  void* block = slab->begin + slab->used;
  slab->used += rounded;
  return block;
}

void HostSlabs::Discard(void* block, int64_t bytes) {
  CHECK_EQ(madvise(block, RoundUp(bytes, kPageBytes), MADV_DONTNEED), 0);
}

}  // namespace trireme
