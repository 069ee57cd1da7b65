#include "models/sparse_dit/block_compression.h"

#include <vector>

#include "parallel/layers/functional.h"
#include "parallel/layers/sparse_functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"

namespace trireme {
namespace {

std::vector<ShardedDim> HeadShard(const ProcessGrid& grid, int dim) {
  const int parts = grid.size(Axis::kTensor);
  if (parts == 1) return {};
  return {{Axis::kTensor, dim, parts, grid.coordinate(Axis::kTensor)}};
}

}  // namespace

BlockCompression::BlockCompression(ParameterStore& store,
                                   const ProcessGrid& grid,
                                   const std::string& name,
                                   const SparseDitConfig& config, bool places)
    : weights_(&store.Create(
          name + ".weights", {kCellsOfSmallBlock, config.key_width()},
          HeadShard(grid, 1), {.kind = Initializer::Kind::kOnes},
          /*decay=*/false)) {
  if (places) {
    places_ = &store.Create(
        name + ".places", {kCellsOfSmallBlock, config.key_width()},
        HeadShard(grid, 1), {.kind = Initializer::Kind::kZeros},
        /*decay=*/false);
  }
  const int64_t d = config.head_dim();
  mix_ = &store.Create(
      name + ".mix", {config.key_heads, d, d}, HeadShard(grid, 0),
      {.kind = Initializer::Kind::kXavierUniform, .fan_in = d, .fan_out = d},
      /*decay=*/true);
}

ShardedVariable BlockCompression::Forward(ForwardContext& context,
                                          const ShardedVariable& x,
                                          const SpatialBlocks& blocks) const {
  Tape& tape = context.tape;
  const Shape& shape = x.value().shape();
  const auto of_cells = [&](Parameter& table) {
    context.parallel.UseParameter(table, x.states);
    return EmbeddingLookup(tape, table, blocks.cells);
  };
  Variable rows =
      Reshape(tape, x.variable, {shape.dim(0) * shape.dim(1), shape.dim(2)});
  if (places_ != nullptr) rows = Add(tape, rows, of_cells(*places_));
  rows = Multiply(tape, rows, of_cells(*weights_));
  const ShardedVariable means =
      BlockMean(context, {Reshape(tape, rows, shape), x.states}, blocks,
                BlockSize::kSmall);
  const ShardedVariable active = Activate(context, Activation::kSilu, means);
  context.parallel.UseParameter(*mix_, x.states);
  return Add(context, means,
             {LinearByParts(tape, active.variable, *mix_), active.states});
}

}  // namespace trireme
