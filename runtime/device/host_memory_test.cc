#include "runtime/device/host_memory.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/free_ranges.h"

namespace trireme {
namespace {

TEST(FreeRanges, TakesTheSmallestThatFitsAndSplitsIt) {
  std::vector<char> memory(1000);
  char* const base = memory.data();
  FreeRanges free;
  free.Add(base, 300);
  free.Add(base + 400, 100);
  free.Add(base + 600, 200);
  EXPECT_EQ(free.Take(150), base + 600);
  EXPECT_EQ(free.Take(100), base + 400);
  EXPECT_EQ(free.Take(50), base + 750);
  EXPECT_EQ(free.Take(301), nullptr);
  EXPECT_EQ(free.bytes(), 300);
}

TEST(FreeRanges, MergesWithBothNeighbours) {
  std::vector<char> memory(1000);
  char* const base = memory.data();
  FreeRanges free;
  free.Add(base, 100);
  free.Add(base + 200, 100);
  EXPECT_EQ(free.ranges().size(), 2u);
  free.Add(base + 100, 100);
  EXPECT_EQ(free.ranges().size(), 1u);
  EXPECT_EQ(free.Take(300), base);
  EXPECT_EQ(free.bytes(), 0);
}

TEST(FreeRangesDeathTest, NothingIsFreedTwice) {
  std::vector<char> memory(1000);
  FreeRanges free;
  free.Add(memory.data(), 100);
  EXPECT_DEATH(free.Add(memory.data() + 50, 100), "freed twice");
  EXPECT_DEATH(free.Add(memory.data(), 10), "freed twice");
}

TEST(HostMemory, BlocksDoNotOverlapAndKeepTheirContents) {
  HostMemory memory;
  std::vector<std::pair<unsigned char*, size_t>> blocks;
  // Some share a slab, one is larger than any slab, one is malloc's.
  for (const size_t bytes :
       {size_t{64} << 10, size_t{3} << 20, (size_t{1} << 20) + 64,
        size_t{80} << 20, size_t{640}}) {
    auto* block = static_cast<unsigned char*>(
        memory.Allocate(static_cast<int64_t>(bytes)));
    ASSERT_NE(block, nullptr);
    std::memset(block, static_cast<int>(blocks.size() + 1), bytes);
    blocks.emplace_back(block, bytes);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks[i].first) % 64, 0u);
    for (size_t at = 0; at < blocks[i].second; at += 4093) {
      ASSERT_EQ(blocks[i].first[at], i + 1) << "block " << i << " at " << at;
    }
  }
  for (const auto& [block, bytes] : blocks) {
    memory.Free(block, static_cast<int64_t>(bytes));
  }
}

TEST(HostMemory, WhatIsGivenBackServesAgainAndNeighboursStay) {
  HostMemory memory;
  constexpr int64_t kBytes = (1 << 20) + 128;
  auto* first = static_cast<unsigned char*>(memory.Allocate(kBytes));
  auto* second = static_cast<unsigned char*>(memory.Allocate(kBytes));
  std::memset(first, 1, kBytes);
  std::memset(second, 2, kBytes);
  memory.Free(first, kBytes);
  EXPECT_GE(memory.kept_bytes(), kBytes);
  memory.GiveBack();
  EXPECT_EQ(memory.kept_bytes(), 0);
  EXPECT_EQ(second[0], 2);
  EXPECT_EQ(second[kBytes - 1], 2);
  EXPECT_EQ(memory.Reuse(kBytes), nullptr) << "nothing is kept";
  auto* again = static_cast<unsigned char*>(memory.Allocate(kBytes));
  std::memset(again, 3, kBytes);
  EXPECT_EQ(second[0], 2);
  memory.Free(again, kBytes);
  memory.Free(second, kBytes);
}

// Ragged batches, routed tokens: sizes that never come twice do not grow the
// footprint step by step, nor do blocks lose what is written to them.
TEST(HostMemory, RandomSizesStayWithinABound) {
  HostMemory memory;
  std::mt19937_64 engine(1);
  struct Held {
    int64_t* block;
    int64_t bytes;
    int64_t mark;
  };
  std::vector<Held> held;
  int64_t live = 0, most = 0;
  constexpr int64_t kLive = int64_t{256} << 20;
  for (int64_t i = 0; i < 20000; ++i) {
    const int64_t bytes =
        64 * std::uniform_int_distribution<int64_t>(1, 1 << 17)(engine);
    while (live + bytes > kLive) {
      std::swap(held[engine() % held.size()], held.back());
      const Held last = held.back();
      held.pop_back();
      ASSERT_EQ(last.block[0], last.mark);
      ASSERT_EQ(last.block[last.bytes / 8 - 1], last.mark);
      memory.Free(last.block, last.bytes);
      live -= last.bytes;
    }
    auto* block = static_cast<int64_t*>(memory.Allocate(bytes));
    ASSERT_NE(block, nullptr);
    block[0] = block[bytes / 8 - 1] = i;
    held.push_back({block, bytes, i});
    live += bytes;
    most = std::max(most, live);
  }
  EXPECT_LE(memory.slab_bytes(), 2 * most);
  for (const Held& last : held) memory.Free(last.block, last.bytes);
}

TEST(HostMemory, SaysSoWhereTheSystemHasNoMemory) {
  HostMemory memory;
  EXPECT_EQ(memory.Allocate(int64_t{1} << 60), nullptr);
}

}  // namespace
}  // namespace trireme
