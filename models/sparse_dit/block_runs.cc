#include "models/sparse_dit/block_runs.h"

#include <algorithm>
#include <numeric>

#include "runtime/core/log.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {
namespace {

// Puts a sample's tokens into their runs.
void CutSample(std::span<const int32_t> voxels, int64_t count,
               const BlockRunSizes& sizes, int64_t sample, BlockRuns& runs) {
  CHECK(count >= 0 && count <= sizes.tokens)
      << "sample " << sample << " has " << count << " of " << sizes.tokens
      << " tokens";
  std::vector<int64_t> blocks(count);
  for (int64_t i = 0; i < count; ++i) {
    blocks[i] = SmallBlockPlace(voxels[3 * i], voxels[3 * i + 1],
                                voxels[3 * i + 2], sizes.resolution);
  }
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return blocks[a] < blocks[b]; });
  const int64_t first_slot = sample * sizes.runs * sizes.slots;
  int64_t run = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t token = order[i];
    // A block belongs to the run in which its first token would lie.
    if (i == 0 || blocks[token] != blocks[order[i - 1]]) {
      run = i * sizes.runs / count;
      ++runs.blocks[sample * sizes.runs + run];
    }
    const int64_t place = runs.counts[sample * sizes.runs + run]++;
    CHECK_LT(place, sizes.slots) << "several tokens at one place";
    const int64_t slot = first_slot + run * sizes.slots + place;
    std::copy_n(voxels.begin() + 3 * token, 3, runs.voxels.begin() + 3 * slot);
    runs.token_of_slot[slot] =
        static_cast<int32_t>(sample * sizes.tokens + token);
    runs.slot_of_token[sample * sizes.padded_tokens + token] =
        static_cast<int32_t>(slot);
  }
}

}  // namespace

int64_t MostTokensOfRun(int64_t tokens, int64_t runs) {
  if (runs == 1) return tokens;
  return std::min(tokens, (tokens + runs - 1) / runs + kCellsOfSmallBlock - 1);
}

BlockRuns CutIntoRuns(std::span<const int32_t> voxels,
                      std::span<const int32_t> counts,
                      const BlockRunSizes& sizes) {
  CHECK_GE(sizes.slots, MostTokensOfRun(sizes.tokens, sizes.runs));
  CHECK_GE(sizes.padded_tokens, sizes.tokens);
  const int64_t slots = sizes.runs * sizes.slots;
  BlockRuns runs;
  runs.voxels.assign(sizes.batch * slots * 3, -1);
  runs.counts.assign(sizes.batch * sizes.runs, 0);
  runs.blocks.assign(sizes.batch * sizes.runs, 0);
  for (int64_t sample = 0; sample < sizes.batch; ++sample) {
    runs.token_of_slot.insert(runs.token_of_slot.end(), slots,
                              static_cast<int32_t>(sample * sizes.tokens));
    runs.slot_of_token.insert(runs.slot_of_token.end(), sizes.padded_tokens,
                              static_cast<int32_t>(sample * slots));
    if (voxels.empty()) continue;
    CutSample(voxels.subspan(sample * sizes.tokens * 3, sizes.tokens * 3),
              counts[sample], sizes, sample, runs);
  }
  return runs;
}

std::vector<int32_t> RowsOfBlocks(const BlockRuns& runs,
                                  const BlockRunSizes& sizes,
                                  int64_t most_of_run, int64_t most) {
  std::vector<int32_t> rows;
  for (int64_t sample = 0; sample < sizes.batch; ++sample) {
    for (int64_t run = 0; run < sizes.runs; ++run) {
      const int64_t of_run = sample * sizes.runs + run;
      for (int32_t i = 0; i < runs.blocks[of_run]; ++i) {
        rows.push_back(static_cast<int32_t>(of_run * most_of_run + i));
      }
    }
    CHECK_LE(static_cast<int64_t>(rows.size()), (sample + 1) * most);
    rows.resize((sample + 1) * most,
                static_cast<int32_t>(sample * sizes.runs * most_of_run));
  }
  return rows;
}

}  // namespace trireme
