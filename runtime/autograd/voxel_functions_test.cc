#include "runtime/autograd/voxel_functions.h"

#include <vector>

#include "runtime/autograd/autoencoder_functions.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/ops/voxels.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

constexpr int32_t kResolution = 4;
constexpr int64_t kMost = 7, kCoarse = 5, kChannels = 4;

// Two samples of unlike sizes, both with padding.
class VoxelFunctionsTest : public GradientCheck {
 protected:
  Tensor Features(uint64_t seed, int64_t tokens = kMost) {
    return Random({2, tokens, kChannels}, seed);
  }

  Tensor voxels_ = VoxelsOf(
      device_, kMost,
      {CellsWhere(kResolution,
                  [](Cell c) { return c[2] == 1 && c[0] < 3 && c[1] < 2; }),
       CellsWhere(kResolution, [](Cell c) { return c[0] + c[1] + c[2] < 2; })});
  Tensor counts_ =
      Tensor::FromValues<int32_t>(device_, {2}, std::vector<int32_t>{6, 4});
  CoarserVoxels coarser_ =
      CoarsenVoxels(voxels_, kResolution, kCoarse, DType::kFloat64);
};

TEST_F(VoxelFunctionsTest, SparseConvolve) {
  Parameter weight = MakeParameter({3, 27, kChannels}, 1);
  Parameter bias = MakeParameter({3}, 2);
  const Tensor neighbors = VoxelNeighbors(voxels_, kResolution);
  Check(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return SparseConvolve(tape, x[0], weight, &bias, neighbors);
      },
      {Features(3)}, {&weight, &bias});
}

TEST_F(VoxelFunctionsTest, PoolVoxels) {
  Check(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return PoolVoxels(tape, x[0], coarser_);
      },
      {Features(1)}, {});
}

TEST_F(VoxelFunctionsTest, SubdivideVoxels) {
  Check(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return SubdivideVoxels(tape, x[0], coarser_);
      },
      {Features(1, kCoarse)}, {});
}

// What every cell of a coarser one has is their mean.
TEST_F(VoxelFunctionsTest, PoolingUndoesSubdividing) {
  Tape tape(device_, Tape::Mode::kInference);
  const Variable coarse(Features(1, kCoarse));
  const auto there = coarser_.counts.ToVector<int32_t>();
  const auto before = coarse.value().ToVector<double>();
  const auto after =
      PoolVoxels(tape, SubdivideVoxels(tape, coarse, coarser_), coarser_)
          .value()
          .ToVector<double>();
  for (int64_t sample = 0; sample < 2; ++sample) {
    ASSERT_GT(there[sample], 0);
    for (int64_t i = 0; i < kCoarse * kChannels; ++i) {
      const int64_t at = sample * kCoarse * kChannels + i;
      EXPECT_NEAR(after[at], i < there[sample] * kChannels ? before[at] : 0,
                  1e-12);
    }
  }
}

// Of cells in several windows, and padding.
TEST_F(VoxelFunctionsTest, VoxelAttention) {
  constexpr int32_t kSide = 9;
  const Tensor voxels = VoxelsOf(
      device_, 6,
      {CellsWhere(kSide,
                  [](Cell c) {
                    return c[0] == c[1] && c[0] % 4 == 0 && c[2] % 8 == 0 &&
                           c[2] <= c[0];
                  }),
       CellsWhere(kSide,
                  [](Cell c) { return c[0] + c[1] == 16 && c[2] < 5; })});
  for (const bool shifted : {false, true}) {
    const VoxelWindows windows = WindowVoxels(voxels, shifted);
    ASSERT_LT(windows.offsets->size(), 13);
    Check(
        [&](Tape& tape, const std::vector<Variable>& x) {
          return VoxelAttention(tape, x[0], windows, /*head_dim=*/2);
        },
        {Random({2, 6, 3 * 4}, 1)}, {});
  }
}

TEST_F(VoxelFunctionsTest, SetNorm) {
  Parameter weight = MakeParameter({kChannels}, 1);
  Parameter bias = MakeParameter({kChannels}, 2);
  Check(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return SetNorm(tape, x[0], counts_, 2, weight, bias, 1e-3);
      },
      {Features(3)}, {&weight, &bias});
}

TEST_F(VoxelFunctionsTest, LossesOfSets) {
  const Tensor targets = Features(1);
  const Tensor kinds = Tensor::FromValues<int32_t>(
      device_, {2, kMost},
      std::vector<int32_t>{0, 1, 2, 0, 2, 1, -1, 0, 0, 3, 0, -1, -1, -1});
  CheckLoss(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return SetLoss(tape, x[0], targets, kinds, {.first = 1, .last = 2}, 2);
      },
      0.7, {Features(2)});
  CheckLoss(
      [&](Tape& tape, const std::vector<Variable>& x) {
        return GaussianDivergence(tape, x[0], &counts_);
      },
      0.7, {Features(3)});
}

}  // namespace
}  // namespace trireme
