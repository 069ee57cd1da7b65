// Sparse attention against its formulas in double precision: what a token
// attends to by blocks, windows and choice.

#include "runtime/ops/sparse_attention.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/sparse_attention_testing.h"

namespace trireme::sparse_attention_testing {
namespace {

TEST_F(SparseAttentionTest, TokensOfOneCubeLieTogether) {
  const Problem problem = Spheres();
  const SpatialBlocks blocks = BlocksOf(device_, problem);
  for (const auto& [kind, side, shift] :
       {std::tuple(&blocks.small, 4, 0), std::tuple(&blocks.large, 8, 0),
        std::tuple(&blocks.windows, 8, 4)}) {
    const auto of_token = kind->of_token.ToVector<int32_t>();
    const auto offsets = kind->offsets.ToVector<int32_t>();
    const auto order = kind->order.ToVector<int32_t>();
    const auto counts = kind->counts.ToVector<int32_t>();
    for (int64_t sample = 0; sample < problem.batch(); ++sample) {
      const Voxels& voxels = problem.samples[sample];
      const auto* of = of_token.data() + sample * problem.tokens;
      std::map<decltype(BlockOf({}, 8)), int32_t> blocks_of_places;
      for (size_t i = 0; i < voxels.size(); ++i) {
        const auto place = BlockOf(voxels[i], side, shift);
        const auto [known, added] = blocks_of_places.emplace(place, of[i]);
        EXPECT_EQ(known->second, of[i]) << "token " << i;
      }
      EXPECT_EQ(counts[sample], static_cast<int32_t>(blocks_of_places.size()));
      for (int32_t block = 0; block < counts[sample]; ++block) {
        const auto* from = offsets.data() + sample * (kind->most + 1) + block;
        EXPECT_LT(from[0], from[1]);
        for (int32_t i = from[0]; i < from[1]; ++i) {
          EXPECT_EQ(of[order[sample * problem.tokens + i]], block);
        }
      }
      for (int64_t i = static_cast<int64_t>(voxels.size()); i < problem.tokens;
           ++i) {
        EXPECT_EQ(of[i], -1);
      }
    }
  }
}

TEST_F(SparseAttentionTest, IsWhatItsFormulasSay) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32}) {
    for (const bool shifted : {false, true}) {
      const Problem problem = Spheres(shifted);
      const Tensors tensors =
          RandomInputs(device_, problem, BlocksOf(device_, problem), dtype);
      ExpectNear(Forward(problem, tensors).out, OutByFormulas(problem, tensors),
                 shifted ? "shifted" : "not shifted", /*slack=*/8);
    }
  }
}

// Models that are trained with all blocks are those with dense attention. Of
// samples whose queries are several ranges, and of one that is less than one.
TEST_F(SparseAttentionTest, WithAllBlocksAndTheirGateAloneItIsDense) {
  const Problem problem = {
      {Sphere(1200, 10, /*every=*/1), {{3, 20, 9}}, Sphere(100, 6), {}},
      1250,
      {.top_k = 40, .shifted = true}};
  const SpatialBlocks blocks = BlocksOf(device_, problem);
  ASSERT_GE(problem.options.top_k, blocks.large.most);
  const Tensors tensors =
      RandomInputs(device_, problem, blocks, DType::kFloat64);
  PassOnly(kSelectedBranch, tensors[5]);
  const SparseAttentionInputs views = Views(tensors);
  const double scale = 1 / std::sqrt(double{kHeadDim});
  std::vector<int32_t> counts;
  for (const Voxels& sample : problem.samples) {
    counts.push_back(static_cast<int32_t>(sample.size()));
  }
  const AttentionMask mask = {.key_counts = Tensor::FromValues<int32_t>(
                                  device_, {problem.batch()}, counts)};
  const AttentionResult dense =
      AttentionForward(views.q, views.k, views.v, scale, mask);
  // Padding attends there.
  const int64_t b = problem.batch();
  const Tensor weights =
      RandomTensor(device_, {b, problem.tokens, kWidth}, DType::kFloat64, 9);
  Values expected = Doubles(dense.out);
  for (int64_t sample = 0; sample < b; ++sample) {
    const auto from = static_cast<int64_t>(problem.samples[sample].size());
    for (int64_t i = (sample * problem.tokens + from) * kWidth;
         i < (sample + 1) * problem.tokens * kWidth; ++i) {
      expected[i] = 0;
      weights.data<double>()[i] = 0;
    }
  }
  ExpectNear(Forward(problem, tensors).out, expected, "out");
  const Tensors gradients = Gradients(problem, tensors, weights);
  const Tensors of_dense = EmptyLike(tensors);
  const SparseAttentionInputs to = Views(of_dense);
  AttentionBackward(views.q, views.k, views.v, dense, weights, scale, mask,
                    to.q, to.k, to.v);
  for (const int i : {0, 1, 2}) {
    ExpectNear(gradients[i], Doubles(of_dense[i]),
               "gradient " + std::to_string(i));
  }
}

TEST_F(SparseAttentionTest, OrderWithinABlockDoesNotMatter) {
  const Problem problem = Spheres(/*shifted=*/true);
  const Tensors tensors = RandomInputs(
      device_, problem, BlocksOf(device_, problem), DType::kFloat64);
  // Tokens of each large block backwards: token i goes to `to[i]`.
  Problem turned = problem;
  std::vector<std::vector<int64_t>> to;
  for (Voxels& voxels : turned.samples) {
    std::vector<int64_t>& places = to.emplace_back(problem.tokens);
    std::iota(places.begin(), places.end(), 0);
    for (size_t begin = 0, end = 0; begin < voxels.size(); begin = end) {
      while (end < voxels.size() &&
             BlockOf(voxels[end], 8) == BlockOf(voxels[begin], 8)) {
        ++end;
      }
      std::reverse(places.begin() + begin, places.begin() + end);
    }
    Voxels moved(voxels.size());
    for (size_t i = 0; i < voxels.size(); ++i) moved[places[i]] = voxels[i];
    voxels = moved;
  }
  const auto turn = [&](const Values& values, int64_t width) {
    Values moved(values.size());
    for (int64_t sample = 0; sample < problem.batch(); ++sample) {
      for (int64_t i = 0; i < problem.tokens; ++i) {
        std::copy_n(
            values.begin() + (sample * problem.tokens + i) * width, width,
            moved.begin() + (sample * problem.tokens + to[sample][i]) * width);
      }
    }
    return moved;
  };
  Tensors moved = tensors;
  for (const int i : {0, 1, 2, 5}) {
    const Values values = turn(Doubles(tensors[i]), tensors[i].dim(2));
    moved[i] = Tensor::FromValues<double>(device_, tensors[i].shape(), values);
  }
  ExpectNear(Forward(turned, moved).out,
             turn(Doubles(Forward(problem, tensors).out), kWidth), "out");
}

// Two tokens on both sides of a block's border see each other in shifted
// windows only, two in one block that a shifted border parts in others only.
TEST_F(SparseAttentionTest, ShiftedWindowsReachOverBorders) {
  const Voxels across = {{7, 1, 1}, {8, 1, 1}}, inside = {{3, 1, 1}, {4, 1, 1}};
  for (const auto& [voxels, shifted, see] :
       {std::tuple(across, true, true), std::tuple(across, false, false),
        std::tuple(inside, true, false), std::tuple(inside, false, true)}) {
    const Problem problem = {{voxels}, 2, {.top_k = 1, .shifted = shifted}};
    const Tensors tensors = RandomInputs(
        device_, problem, BlocksOf(device_, problem), DType::kFloat64);
    PassOnly(kWindowBranch, tensors[5]);
    const Values before = Doubles(Forward(problem, tensors).out);
    // The second token's value.
    for (int64_t c = 0; c < kKeyWidth; ++c) {
      tensors[2].data<double>()[kKeyWidth + c] += 1;
    }
    const Values after = Doubles(Forward(problem, tensors).out);
    EXPECT_EQ(before[0] != after[0], see) << shifted;
    EXPECT_NE(before[kWidth], after[kWidth]);
  }
}

TEST_F(SparseAttentionTest, EqualScoresChooseTheLowestBlocks) {
  // One token in each of five large blocks.
  const Problem problem = {
      {{{0, 0, 0}, {8, 0, 0}, {16, 0, 0}, {0, 8, 0}, {8, 8, 0}}},
      5,
      {.top_k = 3}};
  const Tensors tensors = RandomInputs(
      device_, problem, BlocksOf(device_, problem), DType::kFloat64);
  tensors[3].FillZero();
  for (const int32_t block : Forward(problem, tensors)
                                 .selected.Reshape({-1, 3})
                                 .ToVector<int32_t>()) {
    EXPECT_LT(block, 3);
  }
}

TEST_F(SparseAttentionTest, PaddingNeitherAttendsNorIsAttendedTo) {
  const Problem problem = Spheres(/*shifted=*/true);
  const SpatialBlocks blocks = BlocksOf(device_, problem);
  const Tensors tensors =
      RandomInputs(device_, problem, blocks, DType::kFloat64);
  const Tensor weights = RandomTensor(
      device_, {problem.batch(), problem.tokens, kWidth}, DType::kFloat64, 9);
  const Values out = Doubles(Forward(problem, tensors).out);
  const Tensors gradients = Gradients(problem, tensors, weights);
  const auto small = blocks.small.counts.ToVector<int32_t>();
  // f(input, sample, rows that count).
  const auto for_padding = [&](const std::function<void(int, int64_t)>& f) {
    for (int input = 0; input < 6; ++input) {
      const int64_t rows = tensors[input].dim(1), width = tensors[input].dim(2);
      for (int64_t sample = 0; sample < problem.batch(); ++sample) {
        const bool compressed = input == 3 || input == 4;
        const int64_t count =
            compressed ? small[sample]
                       : static_cast<int64_t>(problem.samples[sample].size());
        for (int64_t i = (sample * rows + count) * width;
             i < (sample + 1) * rows * width; ++i) {
          f(input, i);
        }
      }
    }
  };
  for_padding([&](int input, int64_t i) {
    ASSERT_EQ(gradients[input].data<double>()[i], 0) << "input " << input;
  });
  for_padding([&](int input, int64_t i) {
    tensors[input].data<double>()[i] = 3 + 0.1 * static_cast<double>(i % 7);
  });
  EXPECT_EQ(Doubles(Forward(problem, tensors).out), out);
  const Tensors again = Gradients(problem, tensors, weights);
  for (int input = 0; input < 6; ++input) {
    EXPECT_EQ(Doubles(again[input]), Doubles(gradients[input])) << input;
  }
}

}  // namespace
}  // namespace trireme::sparse_attention_testing
