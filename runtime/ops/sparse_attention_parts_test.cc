// Sparse attention's gradients against differences, and ranks' parts of its
// queries against the whole.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/sparse_attention_testing.h"

namespace trireme::sparse_attention_testing {
namespace {

TEST_F(SparseAttentionTest, GradientsAreDifferences) {
  for (const bool shifted : {false, true}) {
    const Problem problem = {{Sphere(26, 7), {{3, 20, 9}, {4, 20, 9}}},
                             27,
                             {.top_k = 2, .shifted = shifted}};
    const Tensors tensors = RandomInputs(
        device_, problem, BlocksOf(device_, problem), DType::kFloat64);
    const Tensor weights =
        RandomTensor(device_, {2, problem.tokens, kWidth}, DType::kFloat64, 9);
    const Tensors gradients = Gradients(problem, tensors, weights);
    const auto objective = [&] {
      const Values out = Doubles(Forward(problem, tensors).out);
      double sum = 0;
      for (size_t i = 0; i < out.size(); ++i) {
        sum += out[i] * weights.data<double>()[i];
      }
      return sum;
    };
    for (int input = 0; input < 6; ++input) {
      double* x = tensors[input].data<double>();
      // A prime step takes elements of all rows and channels.
      for (int64_t i = 0; i < tensors[input].num_elements(); i += 7) {
        constexpr double kStep = 1e-5;
        const double saved = x[i];
        x[i] = saved + kStep;
        const double above = objective();
        x[i] = saved - kStep;
        const double below = objective();
        x[i] = saved;
        ASSERT_NEAR(gradients[input].data<double>()[i],
                    (above - below) / (2 * kStep), 1e-6)
            << "input " << input << " element " << i;
      }
    }
  }
}

// A rank that holds some of the queries and all keys: the same but for
// rounding, as it multiplies others together.
TEST_F(SparseAttentionTest, PartsOfTheQueriesAreThoseOfTheWhole) {
  const Problem problem = Spheres(/*shifted=*/true);
  const SpatialBlocks blocks = BlocksOf(device_, problem);
  const Tensors tensors =
      RandomInputs(device_, problem, blocks, DType::kFloat64);
  const Values whole = Doubles(Forward(problem, tensors).out);
  const Tensor weights = RandomTensor(
      device_, {problem.batch(), problem.tokens, kWidth}, DType::kFloat64, 9);
  const Tensors gradients = Gradients(problem, tensors, weights);
  std::vector<Values> sums;
  constexpr int64_t kPart = 50;
  const auto part_of = [&](const Tensor& x, int64_t begin) {
    Values part;
    const Values values = Doubles(x);
    for (int64_t sample = 0; sample < problem.batch(); ++sample) {
      const auto from =
          values.begin() + (sample * problem.tokens + begin) * x.dim(2);
      part.insert(part.end(), from, from + kPart * x.dim(2));
    }
    return Tensor::FromValues<double>(device_,
                                      {problem.batch(), kPart, x.dim(2)}, part);
  };
  for (int64_t begin = 0; begin < problem.tokens; begin += kPart) {
    Tensors local = tensors;
    local[0] = part_of(tensors[0], begin);
    local[5] = part_of(tensors[5], begin);
    SparseAttentionOptions options = problem.options;
    options.first_query = begin;
    const SparseAttentionResult forward =
        SparseAttentionForward(Views(local), blocks, options);
    const Tensor expected = Tensor::FromValues<double>(
        device_, {problem.batch(), problem.tokens, kWidth}, whole);
    ExpectNear(forward.out, Doubles(part_of(expected, begin)), "out");
    const Tensors of_part = EmptyLike(local);
    SparseAttentionBackward(Views(local), blocks, options, forward,
                            part_of(weights, begin), Views(of_part));
    ExpectNear(of_part[0], Doubles(part_of(gradients[0], begin)), "q");
    sums.resize(6);
    for (const int i : {1, 2, 3, 4}) {
      const Values values = Doubles(of_part[i]);
      sums[i].resize(values.size(), 0.0);
      for (size_t n = 0; n < values.size(); ++n) sums[i][n] += values[n];
    }
  }
  for (const int i : {1, 2, 3, 4}) {
    ExpectNear(gradients[i], sums[i], "gradient " + std::to_string(i));
  }
}

// Ranks that hold runs of a sample have padding behind each: tokens attend to
// the same tokens wherever they lie, and padding to none.
TEST_F(SparseAttentionTest, EveryRanksPartMayEndInPadding) {
  const Problem problem = Spheres(/*shifted=*/true);
  const Tensors tensors = RandomInputs(
      device_, problem, BlocksOf(device_, problem), DType::kFloat64);
  const int64_t b = problem.batch();
  const Tensor weights =
      RandomTensor(device_, {b, problem.tokens, kWidth}, DType::kFloat64, 9);
  const Tensor whole = Forward(problem, tensors).out;
  const Tensors gradients = Gradients(problem, tensors, weights);
  constexpr int64_t kParts = 3, kSlots = 60, kRows = kParts * kSlots;
  std::vector<int32_t> voxels(b * kRows * 3, -1), counts(b * kParts, 0);
  // The slot of each token of all samples.
  std::vector<std::vector<int64_t>> slots(b);
  for (int64_t sample = 0; sample < b; ++sample) {
    const Voxels& tokens = problem.samples[sample];
    const auto count = static_cast<int64_t>(tokens.size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t part = i * kParts / count;
      const int64_t slot = part * kSlots + counts[sample * kParts + part]++;
      slots[sample].push_back(slot);
      std::copy(tokens[i].begin(), tokens[i].end(),
                voxels.begin() + (sample * kRows + slot) * 3);
    }
  }
  const SpatialBlocks blocks = PartitionTokens(
      Tensor::FromValues<int32_t>(device_, {b, kRows, 3}, voxels),
      Tensor::FromValues<int32_t>(device_, {b, kParts}, counts), kResolution);
  // Rows of tokens in their slots, padding as `padding`; rows of blocks where
  // they are.
  const auto spread = [&](const Tensor& x, bool of_tokens, double padding) {
    const int64_t rows = of_tokens ? kRows : blocks.small.most;
    const int64_t width = x.dim(2);
    const Values values = Doubles(x);
    Values placed(b * rows * width, padding);
    for (int64_t sample = 0; sample < b; ++sample) {
      const int64_t given =
          of_tokens ? static_cast<int64_t>(slots[sample].size()) : x.dim(1);
      for (int64_t i = 0; i < given; ++i) {
        const int64_t to = of_tokens ? slots[sample][i] : i;
        std::copy_n(values.begin() + (sample * x.dim(1) + i) * width, width,
                    placed.begin() + (sample * rows + to) * width);
      }
    }
    return Tensor::FromValues<double>(device_, {b, rows, width}, placed);
  };
  const auto part_of = [&](const Tensor& x, int64_t part) {
    return CopySlice(x, 1, part * kSlots, (part + 1) * kSlots, "part");
  };
  Tensors placed;
  for (int i = 0; i < 6; ++i) {
    placed.push_back(spread(tensors[i], i != 3 && i != 4, /*padding=*/2));
  }
  std::vector<Values> sums(6);
  for (int64_t part = 0; part < kParts; ++part) {
    Tensors local = placed;
    for (const int i : {0, 5}) local[i] = part_of(placed[i], part);
    SparseAttentionOptions options = problem.options;
    options.first_query = part * kSlots;
    const SparseAttentionResult forward =
        SparseAttentionForward(Views(local), blocks, options);
    ExpectNear(forward.out, Doubles(part_of(spread(whole, true, 0), part)),
               "out");
    const Tensors of_part = EmptyLike(local);
    SparseAttentionBackward(Views(local), blocks, options, forward,
                            part_of(spread(weights, true, 2), part),
                            Views(of_part));
    for (const int i : {0, 5}) {
      ExpectNear(of_part[i],
                 Doubles(part_of(spread(gradients[i], true, 0), part)),
                 "gradient " + std::to_string(i));
    }
    for (const int i : {1, 2, 3, 4}) {
      const Values values = Doubles(of_part[i]);
      sums[i].resize(values.size(), 0.0);
      for (size_t n = 0; n < values.size(); ++n) sums[i][n] += values[n];
    }
  }
  for (const int i : {1, 2, 3, 4}) {
    ExpectNear(spread(gradients[i], i < 3, 0), sums[i],
               "gradient " + std::to_string(i));
  }
}

TEST_F(SparseAttentionTest, ThreadsChangeNoBit) {
  const Problem problem = Spheres(/*shifted=*/true);
  const Tensors tensors = RandomInputs(
      device_, problem, BlocksOf(device_, problem), DType::kFloat32);
  const Tensor weights = RandomTensor(
      device_, {problem.batch(), problem.tokens, kWidth}, DType::kFloat32, 9);
  const int before = omp_get_max_threads();
  std::vector<Values> expected;
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    std::vector<Values> got = {Doubles(Forward(problem, tensors).out)};
    for (const Tensor& gradient : Gradients(problem, tensors, weights)) {
      got.push_back(Doubles(gradient));
    }
    if (threads == 1) expected = got;
    EXPECT_TRUE(got == expected) << threads << " threads";
  }
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace trireme::sparse_attention_testing
