#include "runtime/device/host_pages.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace trireme {

std::vector<std::span<std::byte>> PagesOf(const std::vector<Tensor>& tensors) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct Range {
    uintptr_t begin;
    uintptr_t end;
  };
  std::vector<Range> ranges;
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.bytes() == 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(tensor.raw_data());
    const uintptr_t end = begin + static_cast<uintptr_t>(tensor.bytes());
    ranges.push_back({begin / page * page, (end + page - 1) / page * page});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (!merged.empty() && range.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, range.end);
    } else {
      merged.push_back(range);
    }
  }
  std::vector<std::span<std::byte>> pages;
  for (const auto& [begin, end] : merged) {
    pages.emplace_back(reinterpret_cast<std::byte*>(begin), end - begin);
  }
  return pages;
}

}  // namespace trireme
