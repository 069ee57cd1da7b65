// A page that two tensors share is pinned once, and every byte of theirs is.

#include "runtime/device/host_pages.h"

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

TEST(HostPagesTest, CoverTensorsOnceByWholePages) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  CpuDevice host(int64_t{1} << 30);
  const Tensor memory = Tensor::Empty(host, {64 * page}, DType::kUint8);
  const auto at = reinterpret_cast<uintptr_t>(memory.raw_data());
  const auto first = static_cast<int64_t>((page - at % page) % page);
  const auto slice = [&](int64_t begin, int64_t end) {
    return memory.Slice(first + begin, first + end);
  };
  // Parts of a page; two that share one; an end where the next page begins.
  const std::vector<Tensor> tensors = {slice(20 * page, 21 * page),
                                       slice(3 * page + 8, 3 * page + 16),
                                       Tensor(),
                                       slice(8, 2 * page - 8),
                                       slice(page + 16, page + 24),
                                       slice(21 * page, 22 * page + 1)};
  const std::vector<std::span<std::byte>> pages = PagesOf(tensors);
  ASSERT_EQ(pages.size(), 3u);
  auto* const base =
      reinterpret_cast<std::byte*>(at + static_cast<uintptr_t>(first));
  const auto expect = [&](size_t i, int64_t begin, int64_t end) {
    EXPECT_EQ(pages[i].data(), base + begin * page) << i;
    EXPECT_EQ(pages[i].size(), static_cast<size_t>((end - begin) * page)) << i;
  };
  expect(0, 0, 2);
  expect(1, 3, 4);
  expect(2, 20, 23);
}

}  // namespace
}  // namespace trireme
