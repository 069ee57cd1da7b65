#include "runtime/ops/sparse_convolution.h"

#include <algorithm>
#include <functional>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/routing.h"
#include "runtime/ops/voxels.h"

namespace trireme {
namespace {

// Of gathered rows: some that a product keeps all threads busy with, few that
// they stay in the cache.
constexpr int64_t kGatheredElements = int64_t{1} << 21;
constexpr int64_t kLeastRows = 64;

void CheckOperands(const Tensor& x, const Tensor& neighbors,
                   const Tensor& weight) {
  CHECK_EQ(x.rank(), 2);
  CHECK(neighbors.dtype() == DType::kInt32 &&
        neighbors.shape() == Shape({x.dim(0), kVoxelNeighbors}))
      << neighbors.shape() << " of " << x.shape();
  CHECK(weight.rank() == 3 && weight.dim(1) == kVoxelNeighbors)
      << weight.shape();
}

// Calls f(first row, gathered neighbours of rows [n, 27·width]) by blocks of
// rows.
void ForEachBlock(const Tensor& x, const Tensor& neighbors,
                  const std::function<void(int64_t, const Tensor&)>& f) {
  const int64_t rows = x.dim(0);
  const int64_t width = kVoxelNeighbors * x.dim(1);
  const int64_t most = std::max(kGatheredElements / width, kLeastRows);
  for (int64_t begin = 0; begin < rows; begin += most) {
    const int64_t end = std::min(rows, begin + most);
    const Tensor places = neighbors.Slice(begin, end)
                              .Reshape({(end - begin) * kVoxelNeighbors, 1});
    f(begin, SumRows(x, places).Reshape({end - begin, width}));
  }
}

// [27·out, in]: of each column, that of the neighbour across.
Tensor TurnedRound(const Tensor& weight) {
  const int64_t out = weight.dim(0), in = weight.dim(2);
  const Tensor turned =
      Tensor::Empty(weight.device(), {kVoxelNeighbors * out, in},
                    weight.dtype(), MemoryCategory::kWorkspace, "weights");
  for (int64_t j = 0; j < kVoxelNeighbors; ++j) {
    CopyStrided({.outer = out,
                 .inner = 1,
                 .run = in,
                 .from = {.offset = (kVoxelNeighbors - 1 - j) * in,
                          .outer = kVoxelNeighbors * in},
                 .to = {.offset = j * out * in, .outer = in}},
                weight, turned);
  }
  return turned;
}

}  // namespace

Tensor SparseConvolve(const Tensor& x, const Tensor& neighbors,
                      const Tensor& weight, const Tensor* bias) {
  CheckOperands(x, neighbors, weight);
  CHECK_EQ(weight.dim(2), x.dim(1));
  const int64_t out = weight.dim(0);
  const Tensor matrix = weight.Reshape({out, kVoxelNeighbors * weight.dim(2)});
  const Tensor y =
      Tensor::Empty(x.device(), {x.dim(0), out}, x.dtype(),
                    MemoryCategory::kActivations, "sparse convolution");
  ForEachBlock(x, neighbors, [&](int64_t begin, const Tensor& gathered) {
    WriteSlice(MatMul(gathered, matrix, bias,
                      {.transpose_b = true, .label = "sparse convolution"}),
               0, begin, y);
  });
  return y;
}

Tensor SparseConvolveInputGradient(const Tensor& grad_out,
                                   const Tensor& neighbors,
                                   const Tensor& weight) {
  CheckOperands(grad_out, neighbors, weight);
  CHECK_EQ(weight.dim(0), grad_out.dim(1));
  const Tensor turned = TurnedRound(weight);
  const Tensor gradient = Tensor::Empty(
      grad_out.device(), {grad_out.dim(0), weight.dim(2)}, grad_out.dtype(),
      MemoryCategory::kActivations, "sparse convolution gradient");
  ForEachBlock(grad_out, neighbors, [&](int64_t begin, const Tensor& gathered) {
    WriteSlice(MatMul(gathered, turned, nullptr,
                      {.label = "sparse convolution gradient"}),
               0, begin, gradient);
  });
  return gradient;
}

void SparseConvolveWeightGradient(const Tensor& grad_out, const Tensor& x,
                                  const Tensor& neighbors,
                                  const Tensor& weight_grad) {
  CheckOperands(x, neighbors, weight_grad);
  CHECK(weight_grad.dim(0) == grad_out.dim(1) && weight_grad.dim(2) == x.dim(1))
      << weight_grad.shape();
  const Tensor matrix =
      weight_grad.Reshape({grad_out.dim(1), kVoxelNeighbors * x.dim(1)});
  ForEachBlock(x, neighbors, [&](int64_t begin, const Tensor& gathered) {
    MatMulAccumulate(grad_out.Slice(begin, begin + gathered.dim(0)), gathered,
                     {.transpose_a = true}, matrix);
  });
}

}  // namespace trireme
