// Sparse attention against its formulas in double precision: what a token
// attends to by blocks, windows and choice, and gradients against differences.

#include "runtime/ops/sparse_attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

using Voxels = std::vector<std::array<int32_t, 3>>;
using Values = std::vector<double>;

constexpr int64_t kResolution = 24;
constexpr int64_t kHeads = 6, kKeyHeads = 2, kHeadDim = 8;
constexpr int64_t kGroup = kHeads / kKeyHeads;
constexpr int64_t kWidth = kHeads * kHeadDim, kKeyWidth = kKeyHeads * kHeadDim;

// The place of a voxel's block of `side` cells, shifted, as a key of a map in
// the order of blocks.
std::tuple<int32_t, int32_t, int32_t> BlockOf(
    const std::array<int32_t, 3>& voxel, int64_t side, int64_t shift = 0) {
  const auto at = [&](int axis) {
    return static_cast<int32_t>((voxel[axis] + shift) / side);
  };
  return {at(2), at(1), at(0)};
}

// Cells near a sphere, sorted by blocks, in the first `count` places.
Voxels Sphere(size_t count, double radius, int every = 5) {
  Voxels voxels;
  const double center = kResolution / 2.0;
  for (int32_t z = 0; z < kResolution; ++z) {
    for (int32_t y = 0; y < kResolution; ++y) {
      for (int32_t x = 0; x < kResolution; ++x) {
        const double distance = std::sqrt(std::pow(x + 0.5 - center, 2) +
                                          std::pow(y + 0.5 - center, 2) +
                                          std::pow(z + 0.5 - center, 2));
        // Some of them, so that blocks are of all sizes.
        if (std::abs(distance - radius) < 0.9 &&
            (x * 7 + y * 5 + z) % every == 0) {
          voxels.push_back({x, y, z});
        }
      }
    }
  }
  voxels.resize(std::min(voxels.size(), count));
  std::stable_sort(voxels.begin(), voxels.end(), [](auto& a, auto& b) {
    return BlockOf(a, kLargeBlock) < BlockOf(b, kLargeBlock);
  });
  return voxels;
}

// One batch: samples of unlike numbers of tokens, padded to `tokens`.
struct Problem {
  std::vector<Voxels> samples;
  int64_t tokens = 0;
  SparseAttentionOptions options;

  int64_t batch() const { return static_cast<int64_t>(samples.size()); }
};

SpatialBlocks BlocksOf(Device& device, const Problem& problem) {
  std::vector<int32_t> voxels, counts;
  for (const Voxels& sample : problem.samples) {
    for (int64_t i = 0; i < problem.tokens; ++i) {
      const bool real = i < static_cast<int64_t>(sample.size());
      for (int axis = 0; axis < 3; ++axis) {
        voxels.push_back(real ? sample[i][axis] : -1);
      }
    }
    counts.push_back(static_cast<int32_t>(sample.size()));
  }
  const int64_t b = problem.batch();
  return PartitionTokens(
      Tensor::FromValues<int32_t>(device, {b, problem.tokens, 3}, voxels),
      Tensor::FromValues<int32_t>(device, {b}, counts), kResolution);
}

// q, k, v, compressed k and v, gates.
using Tensors = std::vector<Tensor>;

Tensors RandomInputs(Device& device, const Problem& problem,
                     const SpatialBlocks& blocks, DType dtype) {
  const int64_t b = problem.batch(), s = problem.tokens;
  const Shape shapes[] = {{b, s, kWidth},
                          {b, s, kKeyWidth},
                          {b, s, kKeyWidth},
                          {b, blocks.small.most, kKeyWidth},
                          {b, blocks.small.most, kKeyWidth},
                          {b, s, kSparseBranches}};
  Tensors tensors;
  for (const Shape& shape : shapes) {
    tensors.push_back(RandomTensor(device, shape, dtype,
                                   static_cast<uint32_t>(tensors.size() + 1)));
  }
  return tensors;
}

SparseAttentionInputs Views(const Tensors& tensors) {
  const auto heads = [&](int i) {
    return PackedHeads(tensors[i], 1, 0, kHeadDim);
  };
  return {heads(0), heads(1), heads(2), heads(3), heads(4), tensors[5]};
}

Tensors EmptyLike(const Tensors& tensors) {
  Tensors result;
  for (const Tensor& tensor : tensors) {
    result.push_back(Tensor::EmptyLike(tensor));
  }
  return result;
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Attention by its definition, one sample and head at a time.
class Formula {
 public:
  Formula(const Problem& problem, const Tensors& tensors)
      : problem_(problem), small_rows_(tensors[3].dim(1)) {
    for (const Tensor& tensor : tensors) values_.push_back(Doubles(tensor));
  }

  Values Out() const {
    Values out(problem_.batch() * problem_.tokens * kWidth, 0.0);
    for (int64_t sample = 0; sample < problem_.batch(); ++sample) {
      for (int64_t head = 0; head < kKeyHeads; ++head) {
        AddHead(sample, head, out);
      }
    }
    return out;
  }

 private:
  void AddHead(int64_t sample, int64_t key_head, Values& out) const {
    const Voxels& voxels = problem_.samples[sample];
    const auto count = static_cast<int64_t>(voxels.size());
    // Small blocks, those of one large block after each other.
    std::map<std::pair<decltype(BlockOf({}, 8)), decltype(BlockOf({}, 4))>,
             int64_t>
        small;
    std::map<decltype(BlockOf({}, 8)), std::vector<int64_t>> large;
    for (int64_t i = 0; i < count; ++i) {
      small[{BlockOf(voxels[i], 8), BlockOf(voxels[i], 4)}] = 0;
      large[BlockOf(voxels[i], 8)].push_back(i);
    }
    std::vector<int64_t> all_small;
    for (auto& [key, number] : small) {
      number = static_cast<int64_t>(all_small.size());
      all_small.push_back(number);
    }
    for (int64_t i = 0; i < count; ++i) {
      std::map<decltype(BlockOf({}, 8)), double> scores;
      std::vector<Values> parts(kSparseBranches * kGroup);
      for (int64_t member = 0; member < kGroup; ++member) {
        const int64_t head = key_head * kGroup + member;
        Values p;
        parts[member] = Attend(sample, head, i, all_small, 3, small_rows_, &p);
        for (const auto& [key, number] : small) scores[key.first] += p[number];
      }
      std::vector<int64_t> chosen, window;
      for (int64_t k = 0; k < problem_.options.top_k && !scores.empty(); ++k) {
        const auto best = std::max_element(
            scores.begin(), scores.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
        const auto& tokens = large.at(best->first);
        chosen.insert(chosen.end(), tokens.begin(), tokens.end());
        scores.erase(best);
      }
      const int64_t shift = problem_.options.shifted ? 4 : 0;
      for (int64_t j = 0; j < count; ++j) {
        if (BlockOf(voxels[i], 8, shift) == BlockOf(voxels[j], 8, shift)) {
          window.push_back(j);
        }
      }
      for (int64_t member = 0; member < kGroup; ++member) {
        const int64_t head = key_head * kGroup + member;
        const Values* branches[] = {&parts[member], nullptr, nullptr};
        const Values selected =
            Attend(sample, head, i, chosen, 1, problem_.tokens, nullptr);
        const Values near =
            Attend(sample, head, i, window, 1, problem_.tokens, nullptr);
        branches[1] = &selected;
        branches[2] = &near;
        const int64_t token = sample * problem_.tokens + i;
        for (int64_t c = 0; c < kHeadDim; ++c) {
          double& sum = out[token * kWidth + head * kHeadDim + c];
          for (int64_t n = 0; n < kSparseBranches; ++n) {
            sum += Sigmoid(values_[5][token * kSparseBranches + n]) *
                   (*branches[n])[c];
          }
        }
      }
    }
  }

  // Of query i to rows of inputs `keys` and `keys` + 1, which have `rows` of
  // each sample; probabilities by row.
  Values Attend(int64_t sample, int64_t head, int64_t i,
                const std::vector<int64_t>& at, int keys, int64_t rows,
                Values* probabilities) const {
    const auto key = [&](int input, int64_t row, int64_t c) {
      return values_[input][(sample * rows + row) * kKeyWidth +
                            head / kGroup * kHeadDim + c];
    };
    Values scores;
    for (const int64_t row : at) {
      double dot = 0;
      for (int64_t c = 0; c < kHeadDim; ++c) {
        dot += values_[0][(sample * problem_.tokens + i) * kWidth +
                          head * kHeadDim + c] *
               key(keys, row, c);
      }
      scores.push_back(std::exp(dot / std::sqrt(double{kHeadDim})));
    }
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
    Values out(kHeadDim, 0.0);
    for (size_t n = 0; n < at.size(); ++n) {
      scores[n] /= sum;
      for (int64_t c = 0; c < kHeadDim; ++c) {
        out[c] += scores[n] * key(keys + 1, at[n], c);
      }
    }
    if (probabilities != nullptr) *probabilities = scores;
    return out;
  }

  const Problem& problem_;
  int64_t small_rows_;
  std::vector<Values> values_;
};

class SparseAttentionTest : public testing::Test {
 protected:
  SparseAttentionResult Forward(const Problem& problem,
                                const Tensors& tensors) {
    return SparseAttentionForward(Views(tensors), BlocksOf(device_, problem),
                                  problem.options);
  }
  // Of Σ weights∘out.
  Tensors Gradients(const Problem& problem, const Tensors& tensors,
                    const Tensor& weights) {
    const SpatialBlocks blocks = BlocksOf(device_, problem);
    const Tensors gradients = EmptyLike(tensors);
    SparseAttentionBackward(Views(tensors), blocks, problem.options,
                            Forward(problem, tensors), weights,
                            Views(gradients));
    return gradients;
  }
  // With gates that pass one branch alone.
  void PassOnly(SparseBranch branch, const Tensor& gates) {
    double* values = gates.data<double>();
    for (int64_t i = 0; i < gates.num_elements(); ++i) {
      values[i] = i % kSparseBranches == branch ? 1000 : -1000;
    }
  }

  CpuDevice device_{kPlenty};
};

// Samples with some tokens, with one, and with none; many blocks of all kinds.
Problem Spheres(bool shifted = false, int64_t top_k = 3) {
  return {{Sphere(140, 8), {{3, 20, 9}}, Sphere(100, 6), {}},
          150,
          {.top_k = top_k, .shifted = shifted}};
}

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
      ExpectNear(Forward(problem, tensors).out, Formula(problem, tensors).Out(),
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
}  // namespace trireme
