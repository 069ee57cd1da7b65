// Gradients of sparse attention and of means over blocks, through the tape,
// against differences.

#include "runtime/autograd/sparse_functions.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/gradient_check_testing.h"

namespace trireme {
namespace {

class SparseFunctionsTest : public GradientCheck {
 protected:
  // Of six tokens with one padding, and of three, on a grid of 16.
  SpatialBlocks Blocks() {
    const std::vector<int32_t> voxels = {
        0, 0, 0, 5, 1, 2, 9, 1, 1, 10, 1,  1,  3,  9,  15, -1, -1, -1,
        7, 7, 7, 8, 8, 8, 0, 4, 0, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const std::vector<int32_t> counts = {5, 3};
    return PartitionTokens(
        Tensor::FromValues<int32_t>(device_, {2, 6, 3}, voxels),
        Tensor::FromValues<int32_t>(device_, {2}, counts), 16);
  }
};

TEST_F(SparseFunctionsTest, BlockMean) {
  for (const BlockSize size : {BlockSize::kSmall, BlockSize::kLarge}) {
    Check([&](Tape& tape,
              const auto& x) { return BlockMean(tape, x[0], Blocks(), size); },
          {Random({2, 6, 3}, 1)}, {});
  }
}

TEST_F(SparseFunctionsTest, SparseAttention) {
  const int64_t small = Blocks().small.most;
  for (const bool shifted : {false, true}) {
    Check(
        [&](Tape& tape, const auto& x) {
          return SparseAttention(tape, {x[0], x[1], x[2], x[3], x[4], x[5]},
                                 Blocks(), /*head_dim=*/2,
                                 {.top_k = 2, .shifted = shifted});
        },
        {Random({2, 6, 8}, 1), Random({2, 6, 4}, 2), Random({2, 6, 4}, 3),
         Random({2, small, 4}, 4), Random({2, small, 4}, 5),
         Random({2, 6, 3}, 6)},
        {});
  }
}

}  // namespace
}  // namespace trireme
