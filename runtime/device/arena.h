// An account of memory with a hard byte limit over a source of it.
//
// Bytes are rounded up to kAlignment; the limit and all figures count live
// bytes, each under a category and a label. Freed memory is kept for reuse and
// given back to the system before the limit would be passed.
//
// Out of memory: the arena keeps the first error (largest holders and the
// nearest fix) and goes on counting without memory, so that the error can tell
// how much would have been needed.

#ifndef TRIREME_RUNTIME_DEVICE_ARENA_H_
#define TRIREME_RUNTIME_DEVICE_ARENA_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/status.h"
#include "runtime/device/memory_source.h"

namespace trireme {

enum class MemoryCategory {
  kParameters,
  kGradients,
  kOptimizer,
  kActivations,
  kCommunication,
  kWorkspace,
};

inline constexpr int kNumMemoryCategories = 6;

// "parameters", "gradients", ...
std::string_view MemoryCategoryName(MemoryCategory category);

using MemoryByCategory = std::array<int64_t, kNumMemoryCategories>;

struct MemoryStatistics {
  int64_t limit_bytes = 0;
  int64_t current_bytes = 0;
  int64_t peak_bytes = 0;
  MemoryByCategory current_by_category{};
  // The split at the moment of peak_bytes: sums to peak_bytes.
  MemoryByCategory at_peak_by_category{};
  // Each category's own peak, whenever it was.
  MemoryByCategory peak_by_category{};
};

// Thread-safe.
class Arena {
 public:
  static constexpr int64_t kAlignment = 64;
  // Rounded up to it.
  static constexpr int64_t Aligned(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  // data is null where the arena only counts.
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
    uint64_t id = 0;
  };

  // `name` is the owner's in errors. Without a source it only counts.
  Arena(std::string name, int64_t limit_bytes,
        std::unique_ptr<MemorySource> source);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  Block Allocate(int64_t bytes, MemoryCategory category,
                 std::string_view label);
  void Free(const Block& block);

  // True where blocks hold no memory: without a source, or out of memory.
  bool dry() const { return dry_.load(std::memory_order_relaxed); }
  // The first out-of-memory error; OK before.
  absl::Status status() const;

  MemoryStatistics Statistics() const;
  // Makes the current figures the peak figures.
  void ResetPeak();

 private:
  struct Allocation {
    int64_t bytes;
    MemoryCategory category;
    std::string label;
  };

  // These expect mutex_ to be held.
  void Count(int64_t bytes, MemoryCategory category);
  void* Take(int64_t bytes);
  void Exhaust(absl::Status status);
  absl::Status OutOfMemory(const Allocation& wanted) const;

  const std::string name_;
  const std::unique_ptr<MemorySource> source_;
  std::atomic<bool> dry_;
  mutable std::mutex mutex_;
  MemoryStatistics statistics_;
  absl::Status status_;
  uint64_t next_id_ = 1;
  std::unordered_map<uint64_t, Allocation> live_;
};

// The categories with bytes in them, as "activations 1.50 GiB, gradients ...",
// largest first.
std::string MemoryText(const MemoryByCategory& bytes);

// "1.50 GiB", "12.0 KiB", "100 B".
std::string BytesText(int64_t bytes);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_ARENA_H_
