#include "runtime/ops/cpu/spatial_blocks_kernels.h"

#include <algorithm>
#include <span>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

// One sample's part of a kind of blocks.
struct SampleBlocks {
  SampleBlocks(const TokenBlocksPointer& blocks, int64_t sample, int64_t tokens)
      : most(blocks.most),
        count(blocks.counts + sample),
        offsets(blocks.offsets + sample * (blocks.most + 1)),
        order(blocks.order + sample * tokens),
        of_token(blocks.of_token + sample * tokens) {}

  int64_t most;
  int32_t* count;
  int32_t* offsets;
  int32_t* order;
  int32_t* of_token;
};

// Groups those of keys.size() tokens that are `real`, no padding, by equal
// keys, in the order of keys; a group has at most `cells`.
void Group(std::span<const int32_t> real, const std::vector<int64_t>& keys,
           int64_t cells, const SampleBlocks& blocks) {
  const auto tokens = static_cast<int64_t>(keys.size());
  const auto count = static_cast<int64_t>(real.size());
  std::fill(blocks.of_token, blocks.of_token + tokens, -1);
  std::copy(real.begin(), real.end(), blocks.order);
  std::fill(blocks.order + count, blocks.order + tokens, 0);
  std::stable_sort(blocks.order, blocks.order + count,
                   [&](int32_t a, int32_t b) { return keys[a] < keys[b]; });
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t token = blocks.order[i];
    if (i == 0 || keys[token] != keys[blocks.order[i - 1]]) {
      CHECK_LT(found, blocks.most);
      blocks.offsets[found++] = static_cast<int32_t>(i);
    }
    blocks.of_token[token] = static_cast<int32_t>(found - 1);
  }
  *blocks.count = static_cast<int32_t>(found);
  std::fill(blocks.offsets + found, blocks.offsets + blocks.most + 1,
            static_cast<int32_t>(count));
  for (int64_t i = 0; i < found; ++i) {
    CHECK_LE(blocks.offsets[i + 1] - blocks.offsets[i], cells)
        << "several tokens at one place";
  }
}

// A sample's tokens that are no padding.
std::vector<int32_t> RealTokens(const SpatialBlocksArguments& a,
                                int64_t sample) {
  const int64_t of_part = a.tokens / a.parts;
  std::vector<int32_t> real;
  for (int64_t part = 0; part < a.parts; ++part) {
    const int64_t count = a.counts[sample * a.parts + part];
    CHECK(count >= 0 && count <= of_part)
        << "sample " << sample << " has " << count << " of " << of_part
        << " tokens";
    for (int64_t i = 0; i < count; ++i) {
      real.push_back(static_cast<int32_t>(part * of_part + i));
    }
  }
  return real;
}

void PartitionSample(const SpatialBlocksArguments& a, int64_t sample) {
  const std::vector<int32_t> real = RealTokens(a, sample);
  const int32_t* voxels = a.voxels + sample * a.tokens * 3;
  int32_t* cells = a.cells + sample * a.tokens;
  const int64_t window_side =
      (a.resolution - 1 + kWindowShift) / kLargeBlock + 1;
  std::vector<int64_t> small(a.tokens), large(a.tokens), windows(a.tokens);
  std::fill(cells, cells + a.tokens, 0);
  for (const int32_t i : real) {
    const int64_t x = voxels[3 * i], y = voxels[3 * i + 1],
                  z = voxels[3 * i + 2];
    CHECK(std::min({x, y, z}) >= 0 && std::max({x, y, z}) < a.resolution)
        << "voxel " << x << ", " << y << ", " << z << " of sample " << sample
        << " lies beyond a grid of " << a.resolution;
    small[i] = SmallBlockPlace(x, y, z, a.resolution);
    large[i] = small[i] / kSmallOfLargeBlock;
    windows[i] = CellPlace((x + kWindowShift) / kLargeBlock,
                           (y + kWindowShift) / kLargeBlock,
                           (z + kWindowShift) / kLargeBlock, window_side);
    cells[i] = static_cast<int32_t>(CellPlace(x % kSmallBlock, y % kSmallBlock,
                                              z % kSmallBlock, kSmallBlock));
  }
  const SampleBlocks of_small(a.small, sample, a.tokens);
  const SampleBlocks of_large(a.large, sample, a.tokens);
  Group(real, small, kCellsOfSmallBlock, of_small);
  Group(real, large, kCellsOfLargeBlock, of_large);
  Group(real, windows, kCellsOfLargeBlock,
        SampleBlocks(a.windows, sample, a.tokens));
  int32_t* large_of_small = a.large_of_small + sample * a.small.most;
  std::fill_n(large_of_small, a.small.most, 0);
  for (int64_t i = 0; i < *of_small.count; ++i) {
    large_of_small[i] = of_large.of_token[of_small.order[of_small.offsets[i]]];
  }
}

}  // namespace

void PartitionTokensKernel(const SpatialBlocksArguments& arguments) {
  ParallelRows(arguments.batch, 3 * arguments.tokens,
               [&](int64_t sample) { PartitionSample(arguments, sample); });
}

void BlockMeanKernel(const BlockMeanArguments& arguments, const void* x,
                     void* means) {
  const BlockMeanArguments& a = arguments;
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using A = ComputeType<T>;
    ParallelRows(a.batch * a.blocks.most, a.width, [&](int64_t row) {
      const int64_t sample = row / a.blocks.most;
      const SampleBlocks blocks(a.blocks, sample, a.block_tokens);
      const int64_t block = row % a.blocks.most;
      const int32_t begin = blocks.offsets[block];
      const int32_t end = blocks.offsets[block + 1];
      std::vector<A> sums(a.width, A{0});
      for (int32_t i = begin; i < end; ++i) {
        const T* from = static_cast<const T*>(x) +
                        (sample * a.tokens + blocks.order[i]) * a.width;
        for (int64_t c = 0; c < a.width; ++c) {
          sums[c] += static_cast<A>(from[c]);
        }
      }
      const A factor = A{1} / static_cast<A>(std::max(end - begin, 1));
      T* to = static_cast<T*>(means) + row * a.width;
      for (int64_t c = 0; c < a.width; ++c) to[c] = T(sums[c] * factor);
    });
  });
}

void BlockMeanBackwardKernel(const BlockMeanArguments& arguments,
                             const void* grad_means, void* grad_x) {
  const BlockMeanArguments& a = arguments;
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using A = ComputeType<T>;
    ParallelRows(a.batch * a.tokens, a.width, [&](int64_t row) {
      const int64_t sample = row / a.tokens, token = row % a.tokens;
      const SampleBlocks blocks(a.blocks, sample, a.block_tokens);
      const int32_t block =
          token < a.block_tokens ? blocks.of_token[token] : -1;
      T* to = static_cast<T*>(grad_x) + row * a.width;
      if (block < 0) {
        std::fill_n(to, a.width, T{});
        return;
      }
      const A factor = A{1} / static_cast<A>(blocks.offsets[block + 1] -
                                             blocks.offsets[block]);
      const T* from = static_cast<const T*>(grad_means) +
                      (sample * a.blocks.most + block) * a.width;
      for (int64_t c = 0; c < a.width; ++c) {
        to[c] = T(static_cast<A>(from[c]) * factor);
      }
    });
  });
}

}  // namespace trireme
