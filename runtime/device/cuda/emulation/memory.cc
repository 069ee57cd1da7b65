#include "runtime/device/cuda/emulation/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "runtime/core/log.h"
#include "runtime/device/cuda/emulation/races.h"
#include "runtime/device/cuda/emulation/refusal.h"

namespace trireme::cuda_emulation {
namespace {

// Address space, which is never used again: enough for the tests of a process.
// ThreadSanitizer leaves a program less of it.
size_t RangeBytes() { return size_t{1} << (FindsRaces() ? 36 : 40); }

constexpr size_t kGuardBytes = 1 << 20;
constexpr size_t kPageBytes = 4 << 10;

size_t Pages(size_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

Memory::Memory() {
  void* const mapped = mmap(nullptr, RangeBytes(), PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapped != MAP_FAILED);
  range_ = static_cast<char*>(mapped);
}

void* Memory::AllocateOnDevice(size_t bytes) {
  if (bytes == 0 || bytes > free_bytes() ||
      range_used_ + Pages(bytes) + kGuardBytes > RangeBytes()) {
    return nullptr;
  }
  char* const pages = range_ + range_used_;
  CHECK_EQ(mprotect(pages, Pages(bytes), PROT_READ | PROT_WRITE), 0);
  // Large pages, where the system has some, are sooner out of reach.
  (void)madvise(pages, Pages(bytes), MADV_HUGEPAGE);
  // At the end of its pages, as far as the alignment of cudaMalloc allows.
  char* const block = pages + (Pages(bytes) - (bytes + 255) / 256 * 256);
  std::memset(block, 0xFF, bytes);
  if (!open_) CHECK_EQ(mprotect(pages, Pages(bytes), PROT_NONE), 0);
  range_used_ += Pages(bytes) + kGuardBytes;
  device_bytes_ += bytes;
  device_[block] = bytes;
  return block;
}

void* Memory::AllocatePinned(size_t bytes) {
  void* const block = std::aligned_alloc(kPageBytes, Pages(bytes));
  if (block == nullptr) return nullptr;
  std::memset(block, 0xFF, bytes);
  pinned_[static_cast<char*>(block)] = bytes;
  return block;
}

bool Memory::Register(void* begin, size_t bytes) {
  char* const first = static_cast<char*>(begin);
  const auto after = registered_.lower_bound(first);
  if (after != registered_.end() && after->first < first + bytes) return false;
  if (Within(registered_, begin, 1)) return false;
  registered_[first] = bytes;
  return true;
}

void Memory::Unregister(void* begin) {
  if (registered_.erase(static_cast<char*>(begin)) == 0) {
    Refuse("cudaHostUnregister of what is not registered");
  }
}

void Memory::FreeOnDevice(void* block) {
  const auto found = device_.find(static_cast<char*>(block));
  if (found == device_.end()) Refuse("cudaFree of what is no block of its");
  char* const pages =
      range_ + (static_cast<char*>(block) - range_) / kPageBytes * kPageBytes;
  CHECK_EQ(madvise(pages, Pages(found->second), MADV_DONTNEED), 0);
  CHECK_EQ(mprotect(pages, Pages(found->second), PROT_NONE), 0);
  device_bytes_ -= found->second;
  device_.erase(found);
}

void Memory::FreePinned(void* block) {
  if (pinned_.erase(static_cast<char*>(block)) == 0) {
    Refuse("cudaFreeHost of what is no pinned block");
  }
  std::free(block);
}

bool Memory::Within(const Blocks& blocks, const void* begin, size_t bytes) {
  const char* const first = static_cast<const char*>(begin);
  auto after = blocks.upper_bound(first);
  if (after == blocks.begin()) return false;
  const auto& [block, size] = *--after;
  return first + bytes <= block + size;
}

void Memory::Open() {
  if (!open_) Protect(false);
  open_ = true;
}

void Memory::Close() {
  if (open_) Protect(true);
  open_ = false;
}

void Memory::Protect(bool protect) {
  for (const auto& [block, bytes] : device_) {
    char* const pages = range_ + (block - range_) /
                                     static_cast<ptrdiff_t>(kPageBytes) *
                                     static_cast<ptrdiff_t>(kPageBytes);
    CHECK_EQ(mprotect(pages, Pages(bytes),
                      protect ? PROT_NONE : PROT_READ | PROT_WRITE),
             0);
  }
}

}  // namespace trireme::cuda_emulation
