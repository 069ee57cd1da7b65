#include <cstdint>
#include <vector>

#include "runtime/ops/convolution.h"
#include "runtime/ops/group_norm.h"
#include "runtime/ops/op_case_families_testing.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"
#include "runtime/ops/set_loss.h"
#include "runtime/ops/set_norm.h"
#include "runtime/ops/sparse_convolution.h"
#include "runtime/ops/voxels.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

constexpr double kEps = 1e-6;

}  // namespace

std::vector<OpCase> Pictures() {
  return {
      {.name = "Convolution",
       .run = [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({2, 19, 13, 21}), weight = in({70, 21, 3, 3});
         const Tensor bias = in({70}), pixel_weight = in({5, 21, 1, 1});
         return {
             Convolve(x, weight, &bias,
                      {.padding_before = 1, .padding_after = 1}),
             Convolve(x, weight, nullptr, {.stride = 2, .padding_after = 1}),
             Convolve(x, pixel_weight, nullptr), DoubleNearest(x)};
       },
       .same_on_any_threads = false},
      // More pixels than one block of sums has.
      {.name = "GroupNorm",
       .run = [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({2, 1100, 36});
         const Tensor weight = in({36}), bias = in({36});
         return {GroupNorm(x, 4, weight, bias, kEps),
                 GroupNorm(x, 36, weight, bias, kEps, Activation::kSilu)};
       }},
  };
}

std::vector<OpCase> SparseVoxels() {
  // Two samples, one of which has padding; more rows than one block has.
  constexpr int32_t kSide = 11;
  const auto voxels = [](Device& device) {
    return VoxelsOf(
        device, 1000,
        {CellsWhere(kSide, [](Cell c) { return (c[0] + c[1] * c[2]) % 4 > 0; }),
         CellsWhere(kSide, [](Cell c) { return c[0] + c[1] + c[2] < 12; })});
  };
  return {
      {.name = "SparseConvolve",
       .run = [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({2000, 72}), weight = in({24, 27, 72});
         const Tensor bias = in({24});
         const Tensor neighbors = VoxelNeighbors(voxels(x.device()), kSide);
         const Tensor y = SparseConvolve(x, neighbors, weight, &bias);
         const Tensor gradient =
             Tensor::Zeros(x.device(), {24, 27, 72}, ComputeDType(x.dtype()));
         SparseConvolveWeightGradient(y, x, neighbors, gradient);
         return {y, SparseConvolveInputGradient(y, neighbors, weight),
                 gradient};
       },
       // The gradients are of a rounded result.
       .roundings = 12,
       .same_on_any_threads = false},
      {.name = "SetNorm",
       .run = [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 230, 24}), slope = in({3, 230, 24});
         const Tensor weight = in({24}), bias = in({24});
         const Tensor counts = Tensor::FromValues<int32_t>(
             x.device(), {3}, std::vector<int32_t>{230, 17, 101});
         // Of each set another part counts.
         std::vector<int32_t> kind;
         for (int32_t row = 0; row < 3 * 230; ++row) {
           kind.push_back(row % (3 + row / 230) - 1);
         }
         const Tensor kinds =
             Tensor::FromValues<int32_t>(x.device(), {3, 230}, kind);
         const SetNormResult forward =
             SetNorm(x, counts, 4, weight, bias, kEps);
         const Tensor sums =
             Tensor::Zeros(x.device(), {2, 24}, ComputeDType(x.dtype()));
         const Tensor weight_grad = sums.Slice(0, 1),
                      bias_grad = sums.Slice(1, 2);
         const Tensor dx =
             SetNormBackward(x, counts, 4, weight, forward.moments, slope,
                             &weight_grad, &bias_grad);
         return {
             forward.out,
             forward.moments,
             dx,
             sums,
             SetLoss(x, slope, kinds, {.first = 1, .last = 2}, 2),
             SetLossBackward(x, slope, kinds, {.first = 1, .last = 2}, 2, 0.5)};
       }},
      {.name = "coarser voxels",
       .run = [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({2000, 24});
         const CoarserVoxels coarser =
             CoarsenVoxels(voxels(x.device()), kSide, 216, x.dtype());
         const Tensor y =
             ScaleRows(SumRows(x, coarser.children), coarser.shares);
         return {y, SumRows(y, coarser.parents),
                 VoxelPositions(coarser.voxels, 24, x.dtype())};
       }},
  };
}

}  // namespace trireme
