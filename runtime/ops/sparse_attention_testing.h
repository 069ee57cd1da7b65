// Problems of sparse attention, and what its formulas make of them in double
// precision.

#ifndef TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_TESTING_H_
#define TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_TESTING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme::sparse_attention_testing {

using Voxels = std::vector<std::array<int32_t, 3>>;
using Values = std::vector<double>;

inline constexpr int64_t kResolution = 24;
inline constexpr int64_t kHeads = 6, kKeyHeads = 2, kHeadDim = 8;
inline constexpr int64_t kGroup = kHeads / kKeyHeads;
inline constexpr int64_t kWidth = kHeads * kHeadDim,
                         kKeyWidth = kKeyHeads * kHeadDim;

// The place of a voxel's block of `side` cells, shifted, as a key of a map in
// the order of blocks.
inline std::tuple<int32_t, int32_t, int32_t> BlockOf(
    const std::array<int32_t, 3>& voxel, int64_t side, int64_t shift = 0) {
  const auto at = [&](int axis) {
    return static_cast<int32_t>((voxel[axis] + shift) / side);
  };
  return {at(2), at(1), at(0)};
}

// Cells near a sphere, sorted by blocks, in the first `count` places.
Voxels Sphere(size_t count, double radius, int every = 5);

// One batch: samples of unlike numbers of tokens, padded to `tokens`.
struct Problem {
  std::vector<Voxels> samples;
  int64_t tokens = 0;
  SparseAttentionOptions options;

  int64_t batch() const { return static_cast<int64_t>(samples.size()); }
};

// Samples with some tokens, with one, and with none; many blocks of all kinds.
Problem Spheres(bool shifted = false, int64_t top_k = 3);

SpatialBlocks BlocksOf(Device& device, const Problem& problem);

// q, k, v, compressed k and v, gates.
using Tensors = std::vector<Tensor>;

Tensors RandomInputs(Device& device, const Problem& problem,
                     const SpatialBlocks& blocks, DType dtype);
SparseAttentionInputs Views(const Tensors& tensors);
Tensors EmptyLike(const Tensors& tensors);

// Attention by its definition, one sample and head at a time.
Values OutByFormulas(const Problem& problem, const Tensors& tensors);

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

}  // namespace trireme::sparse_attention_testing

#endif  // TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_TESTING_H_
