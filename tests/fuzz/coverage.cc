#include "tests/fuzz/coverage.h"

#include <array>
#include <atomic>
#include <cstddef>

namespace trireme {
namespace {

// A place for each address: no program's code is longer, so that no two blocks
// share one.
constexpr size_t kPlaces = size_t{1} << 25;

struct Reached {
  std::array<std::atomic<bool>, kPlaces> blocks;
  std::atomic<int64_t> count;
};

// Without a guard of its initialization, for it is asked by each block.
Reached& TheReached() {
  static constinit Reached reached{};
  return reached;
}

}  // namespace

int64_t BlocksReached() {
  return TheReached().count.load(std::memory_order_relaxed);
}

}  // namespace trireme

extern "C" void __sanitizer_cov_trace_pc() {
  const auto address = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  trireme::Reached& reached = trireme::TheReached();
  std::atomic<bool>& block = reached.blocks[address % trireme::kPlaces];
  // Most blocks have run before, and a load is cheaper than an exchange.
  if (block.load(std::memory_order_relaxed)) return;
  if (!block.exchange(true, std::memory_order_relaxed)) {
    reached.count.fetch_add(1, std::memory_order_relaxed);
  }
}
