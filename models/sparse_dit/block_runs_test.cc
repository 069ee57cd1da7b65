// Every token has one slot, blocks stay whole, and ranks have about the same
// number of tokens.

#include "models/sparse_dit/block_runs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {
namespace {

constexpr int64_t kResolution = 32;

// Cells of a plate two cells thick, row by row: no block follows another.
std::vector<int32_t> Plate(int64_t count) {
  std::vector<int32_t> voxels;
  for (int32_t i = 0; i < count; ++i) {
    voxels.insert(voxels.end(), {i % 32, i / 32 % 32, 7 + i / 1024});
  }
  return voxels;
}

int64_t BlockOf(const std::vector<int32_t>& voxels, int64_t row) {
  return SmallBlockPlace(voxels[3 * row], voxels[3 * row + 1],
                         voxels[3 * row + 2], kResolution);
}

// Samples of unlike numbers of tokens, one of a single block and one of none.
TEST(BlockRunsTest, TokensHaveSlotsAndBlocksStayWhole) {
  constexpr int64_t kTokens = 2000, kBatch = 4;
  const std::vector<int32_t> counts = {2000, 700, 3, 0};
  std::vector<int32_t> voxels;
  for (int64_t i = 0; i < kBatch; ++i) {
    const std::vector<int32_t> sample = Plate(kTokens);
    voxels.insert(voxels.end(), sample.begin(), sample.end());
  }
  for (const int64_t ranks : {1, 2, 3, 8}) {
    const BlockRunSizes sizes = {.batch = kBatch,
                                 .tokens = kTokens,
                                 .padded_tokens = kTokens + 3,
                                 .resolution = kResolution,
                                 .runs = ranks,
                                 .slots = MostTokensOfRun(kTokens, ranks) + 1};
    const BlockRuns runs = CutIntoRuns(voxels, counts, sizes);
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      // By block, the run that has it.
      std::map<int64_t, int64_t> run_of_block;
      std::set<int64_t> slots;
      int64_t last = -1;
      for (int64_t run = 0; run < ranks; ++run) {
        const int64_t count = runs.counts[sample * ranks + run];
        EXPECT_LE(std::abs(count - counts[sample] / ranks), kCellsOfSmallBlock)
            << ranks << " ranks, run " << run << " of sample " << sample;
        std::set<int64_t> blocks;
        for (int64_t i = 0; i < sizes.slots; ++i) {
          const int64_t slot = (sample * ranks + run) * sizes.slots + i;
          if (i >= count) {
            EXPECT_EQ(runs.voxels[3 * slot], -1);
            EXPECT_EQ(runs.token_of_slot[slot], sample * kTokens);
            continue;
          }
          const int64_t token = runs.token_of_slot[slot];
          const int64_t own = token - sample * kTokens;
          EXPECT_LT(own, counts[sample]);
          EXPECT_EQ(runs.slot_of_token[sample * sizes.padded_tokens + own],
                    slot);
          slots.insert(slot);
          const int64_t block = BlockOf(runs.voxels, slot);
          EXPECT_EQ(block, BlockOf(voxels, token));
          EXPECT_GE(block, last) << "blocks are not in their order";
          last = block;
          blocks.insert(block);
          EXPECT_EQ(run_of_block.emplace(block, run).first->second, run)
              << "a block of two ranks";
        }
        EXPECT_EQ(runs.blocks[sample * ranks + run],
                  static_cast<int32_t>(blocks.size()));
      }
      EXPECT_EQ(static_cast<int32_t>(slots.size()), counts[sample]);
    }
  }
}

// The first run's last place is where a block of 64 begins.
TEST(BlockRunsTest, ARunHasRoomForItsLastBlock) {
  std::vector<int32_t> voxels;
  // Blocks of 63, 64 and 1 tokens along x.
  for (int32_t i = 0; i < 128; ++i) {
    const int32_t block = (i + 1) / 64, cell = (i + 1) % 64;
    voxels.insert(voxels.end(),
                  {4 * block + cell % 4, cell / 4 % 4, cell / 16});
  }
  const BlockRuns runs = CutIntoRuns(voxels, std::vector<int32_t>{128},
                                     {.batch = 1,
                                      .tokens = 128,
                                      .padded_tokens = 128,
                                      .resolution = 12,
                                      .runs = 2,
                                      .slots = MostTokensOfRun(128, 2)});
  EXPECT_EQ(runs.counts, (std::vector<int32_t>{127, 1}));
  EXPECT_EQ(MostTokensOfRun(128, 2), 127);
}

// Two runs of two samples: blocks of the second run follow those of the first.
TEST(BlockRunsTest, BlocksOfAllRunsFollowEachOther) {
  const BlockRuns runs = {.blocks = {2, 1, 0, 2}};
  EXPECT_EQ(RowsOfBlocks(runs, {.batch = 2, .runs = 2}, /*most_of_run=*/3,
                         /*most=*/4),
            (std::vector<int32_t>{0, 1, 3, 0, 9, 10, 6, 6}));
}

TEST(BlockRunsTest, WithoutVoxelsAllIsPadding) {
  const BlockRuns runs = CutIntoRuns({}, {},
                                     {.batch = 2,
                                      .tokens = 10,
                                      .padded_tokens = 10,
                                      .resolution = 8,
                                      .runs = 2,
                                      .slots = 10});
  EXPECT_EQ(runs.voxels.size(), 120u);
  EXPECT_EQ(runs.token_of_slot.size(), 40u);
  EXPECT_EQ(runs.slot_of_token,
            (std::vector<int32_t>{0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
                                  20, 20, 20, 20, 20, 20, 20, 20, 20, 20}));
  EXPECT_EQ(runs.counts, (std::vector<int32_t>(4, 0)));
}

}  // namespace
}  // namespace trireme
