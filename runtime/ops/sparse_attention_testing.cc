#include "runtime/ops/sparse_attention_testing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "runtime/ops/attention.h"

namespace trireme::sparse_attention_testing {
namespace {

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

}  // namespace

Voxels Sphere(size_t count, double radius, int every) {
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

Problem Spheres(bool shifted, int64_t top_k) {
  return {{Sphere(140, 8), {{3, 20, 9}}, Sphere(100, 6), {}},
          150,
          {.top_k = top_k, .shifted = shifted}};
}

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

Values OutByFormulas(const Problem& problem, const Tensors& tensors) {
  return Formula(problem, tensors).Out();
}

}  // namespace trireme::sparse_attention_testing
