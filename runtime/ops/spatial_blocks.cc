#include "runtime/ops/spatial_blocks.h"

#include <algorithm>
#include <string_view>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/spatial_blocks_kernels.h"
#include "runtime/ops/host_kernel.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

Tensor Integers(Device& device, const Shape& shape) {
  return Tensor::Empty(device, shape, DType::kInt32,
                       MemoryCategory::kActivations, "blocks of tokens");
}

int64_t Cube(int64_t side) { return side * side * side; }

TokenBlocks EmptyBlocks(Device& device, int64_t batch, int64_t tokens,
                        int64_t blocks_a_side) {
  TokenBlocks blocks;
  blocks.most = std::min(tokens, Cube(blocks_a_side));
  blocks.counts = Integers(device, {batch});
  blocks.offsets = Integers(device, {batch, blocks.most + 1});
  blocks.order = Integers(device, {batch, tokens});
  blocks.of_token = Integers(device, {batch, tokens});
  return blocks;
}

int32_t* Pointer(const Tensor& integers) {
  return static_cast<int32_t*>(integers.raw_data());
}

BlockMeanArguments MeanArguments(const Tensor& x, int64_t tokens,
                                 const TokenBlocks& blocks) {
  CHECK_EQ(x.rank(), 3);
  CHECK_EQ(x.dim(0), blocks.of_token.dim(0));
  CHECK_GE(tokens, blocks.of_token.dim(1));
  return {.dtype = x.dtype(),
          .batch = x.dim(0),
          .tokens = tokens,
          .block_tokens = blocks.of_token.dim(1),
          .width = x.dim(2),
          .blocks = blocks.pointer()};
}

}  // namespace

TokenBlocksPointer TokenBlocks::pointer() const {
  return {most, Pointer(counts), Pointer(offsets), Pointer(order),
          Pointer(of_token)};
}

SpatialBlocks PartitionTokens(const Tensor& voxels, const Tensor& counts,
                              int64_t resolution) {
  CHECK_EQ(voxels.rank(), 3);
  CHECK_EQ(voxels.dim(2), 3);
  CHECK(voxels.dtype() == DType::kInt32 && counts.dtype() == DType::kInt32);
  CHECK_GT(resolution, 0);
  Device& device = voxels.device();
  const int64_t b = voxels.dim(0), tokens = voxels.dim(1);
  const int64_t parts = counts.rank() == 2 ? counts.dim(1) : 1;
  CHECK_EQ(counts.num_elements(), b * parts);
  CHECK_EQ(tokens % parts, 0);
  const int64_t large = (resolution + kLargeBlock - 1) / kLargeBlock;
  SpatialBlocks blocks;
  blocks.small = EmptyBlocks(device, b, tokens,
                             (resolution + kSmallBlock - 1) / kSmallBlock);
  blocks.large = EmptyBlocks(device, b, tokens, large);
  blocks.windows = EmptyBlocks(
      device, b, tokens, (resolution - 1 + kWindowShift) / kLargeBlock + 1);
  blocks.large_of_small = Integers(device, {b, blocks.small.most});
  blocks.cells = Integers(device, {b * tokens});
  HostKernel kernel(device);
  const auto writes = [&](const Tensor& table) {
    return static_cast<int32_t*>(kernel.Writes(table));
  };
  const auto writes_blocks = [&](const TokenBlocks& of) -> TokenBlocksPointer {
    return {of.most, writes(of.counts), writes(of.offsets), writes(of.order),
            writes(of.of_token)};
  };
  const SpatialBlocksArguments arguments = {
      .batch = b,
      .tokens = tokens,
      .parts = parts,
      .resolution = resolution,
      .voxels = static_cast<const int32_t*>(kernel.Reads(voxels)),
      .counts = static_cast<const int32_t*>(kernel.Reads(counts)),
      .small = writes_blocks(blocks.small),
      .large = writes_blocks(blocks.large),
      .windows = writes_blocks(blocks.windows),
      .large_of_small = writes(blocks.large_of_small),
      .cells = writes(blocks.cells)};
  // The voxels, and two tables of tokens for each of three kinds of blocks.
  kernel.Run(voxels.bytes() + 7 * blocks.cells.bytes(),
             [arguments] { PartitionTokensKernel(arguments); });
  return blocks;
}

Tensor BlockMean(const Tensor& x, const TokenBlocks& blocks) {
  Device& device = x.device();
  const Tensor means =
      Tensor::Empty(device, {x.dim(0), blocks.most, x.dim(2)}, x.dtype(),
                    MemoryCategory::kActivations, "means of blocks");
  device.kernels().spatial_blocks.mean(device.stream(),
                                       MeanArguments(x, x.dim(1), blocks),
                                       x.raw_data(), means.raw_data());
  return means;
}

Tensor BlockMeanBackward(const Tensor& grad_means, const TokenBlocks& blocks,
                         int64_t tokens) {
  CHECK_EQ(grad_means.dim(1), blocks.most);
  Device& device = grad_means.device();
  const Tensor gradient = Tensor::Empty(
      device, {grad_means.dim(0), tokens, grad_means.dim(2)},
      grad_means.dtype(), MemoryCategory::kActivations, "gradient of tokens");
  device.kernels().spatial_blocks.mean_backward(
      device.stream(), MeanArguments(grad_means, tokens, blocks),
      grad_means.raw_data(), gradient.raw_data());
  return gradient;
}

}  // namespace trireme
