#include "runtime/device/host_slabs.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(HostSlabs, BlocksDoNotOverlapAndKeepTheirContents) {
  HostSlabs slabs;
  std::vector<std::pair<unsigned char*, size_t>> blocks;
  // Some share a slab, one is larger than any slab.
  for (const size_t bytes : {size_t{64} << 10, size_t{3} << 20,
                             (size_t{1} << 20) + 1, size_t{80} << 20}) {
    auto* block = static_cast<unsigned char*>(
        slabs.Allocate(static_cast<int64_t>(bytes)));
    ASSERT_NE(block, nullptr);
    std::memset(block, static_cast<int>(blocks.size() + 1), bytes);
    blocks.emplace_back(block, bytes);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks[i].first) % 4096, 0u);
    for (size_t at = 0; at < blocks[i].second; at += 4093) {
      ASSERT_EQ(blocks[i].first[at], i + 1) << "block " << i << " at " << at;
    }
  }
}

TEST(HostSlabs, DiscardedBlocksServeAgainAndLeaveTheirNeighboursAlone) {
  HostSlabs slabs;
  constexpr int64_t kBytes = (1 << 20) + 100;
  auto* first = static_cast<unsigned char*>(slabs.Allocate(kBytes));
  auto* second = static_cast<unsigned char*>(slabs.Allocate(kBytes));
  std::memset(first, 1, kBytes);
  std::memset(second, 2, kBytes);
  HostSlabs::Discard(first, kBytes);
  EXPECT_EQ(second[0], 2);
  EXPECT_EQ(second[kBytes - 1], 2);
  std::memset(first, 3, kBytes);
  EXPECT_EQ(first[kBytes - 1], 3);
  EXPECT_EQ(second[0], 2);
}

TEST(HostSlabs, SaysSoWhereTheSystemHasNoMemory) {
  HostSlabs slabs;
  EXPECT_EQ(slabs.Allocate(int64_t{1} << 60), nullptr);
}

}  // namespace
}  // namespace trireme
