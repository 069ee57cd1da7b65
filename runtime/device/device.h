// A device: an arena with a hard byte limit and exact accounting.
//
// Every byte that a tensor or a kernel's workspace holds comes from a Device,
// under a category and a label. Bytes are rounded up to kAlignment; the limit
// and all figures count live bytes. Freed blocks are cached for reuse and given
// back to the system before the limit would be passed.
//
// Dry devices count but hold nothing: `Allocate` returns null, kernels see
// dry() and skip their maths, so that running the same code gives the exact
// memory of a step for any number of ranks.
//
// Out of memory: the device keeps the first error (largest holders and the
// nearest fix), turns dry, and goes on counting. Whoever drives it (the
// executor) checks status() after each instruction and ends the job with the
// error; nothing crashes in between, and the error can tell how much memory
// would have been needed.
//
// Thread-safe. A Device outlives every Tensor on it.

#ifndef TRIREME_RUNTIME_DEVICE_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_DEVICE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

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

class Device {
 public:
  static constexpr int64_t kAlignment = 64;

  // A block of the arena. data is null on a dry device.
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
    uint64_t id = 0;
  };

  virtual ~Device() = default;

  virtual Block Allocate(int64_t bytes, MemoryCategory category,
                         std::string_view label) = 0;
  virtual void Free(const Block& block) = 0;

  // True where no maths is to be done: a dry device, or one out of memory.
  virtual bool dry() const = 0;
  // The first out-of-memory error; OK before.
  virtual absl::Status status() const = 0;

  virtual MemoryStatistics Statistics() const = 0;
  // Makes the current figures the peak figures.
  virtual void ResetPeak() = 0;

  // "cpu", "dry cpu".
  virtual std::string name() const = 0;
};

// The categories with bytes in them, as "activations 1.50 GiB, gradients ...",
// largest first.
std::string MemoryText(const MemoryByCategory& bytes);

// "1.50 GiB", "12.0 KiB", "100 B".
std::string BytesText(int64_t bytes);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_DEVICE_H_
