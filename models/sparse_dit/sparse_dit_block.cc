#include "models/sparse_dit/sparse_dit_block.h"

#include <string_view>

#include "fmt/format.h"
#include "models/transformer/modulated_stream.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/sparse_functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"

namespace trireme {
namespace {

enum ModulationPart {
  kAttentionShift,
  kAttentionScale,
  kAttentionGate,
  kMlpShift,
  kMlpScale,
  kMlpGate,
  kModulationParts
};

std::string NameOf(int64_t index, std::string_view part) {
  return fmt::format("blocks.{}.{}", index, part);
}

}  // namespace

SparseDitBlock::SparseDitBlock(ParameterStore& store, const ProcessGrid& grid,
                               int64_t index, const SparseDitConfig& config,
                               Keep keep)
    : config_(config),
      keep_(keep),
      shifted_(index % 2 == 1),
      modulation_(store, grid, NameOf(index, "modulation"), config.hidden,
                  kModulationParts),
      attention_{
          ColumnParallelLinear(store, grid, NameOf(index, "attention.q"),
                               config.hidden, config.hidden),
          ColumnParallelLinear(store, grid, NameOf(index, "attention.k"),
                               config.hidden, config.key_width()),
          ColumnParallelLinear(store, grid, NameOf(index, "attention.v"),
                               config.hidden, config.key_width()),
          BlockCompression(store, grid, NameOf(index, "attention.compressed_k"),
                           config,
                           /*places=*/true),
          BlockCompression(store, grid, NameOf(index, "attention.compressed_v"),
                           config,
                           /*places=*/false),
          ReplicatedLinear(store, NameOf(index, "attention.gates"),
                           config.hidden, kSparseBranches, {.bias = false}),
          RowParallelLinear(store, grid, NameOf(index, "attention.out"),
                            config.hidden, config.hidden, {.bias = false})},
      cross_{&store.Create(NameOf(index, "cross.norm.weight"), {config.hidden},
                           {}, {.kind = Initializer::Kind::kOnes},
                           /*decay=*/false),
             &store.Create(NameOf(index, "cross.norm.bias"), {config.hidden},
                           {}, {.kind = Initializer::Kind::kZeros},
                           /*decay=*/false),
             ColumnParallelLinear(store, grid, NameOf(index, "cross.q"),
                                  config.hidden, config.hidden),
             ColumnParallelLinear(store, grid, NameOf(index, "cross.kv"),
                                  config.condition_width(), 2 * config.hidden,
                                  {.parts = 2}),
             RowParallelLinear(store, grid, NameOf(index, "cross.out"),
                               config.hidden, config.hidden)},
      mlp_{ColumnParallelLinear(store, grid, NameOf(index, "mlp.in"),
                                config.hidden, config.mlp_hidden()),
           RowParallelLinear(store, grid, NameOf(index, "mlp.out"),
                             config.mlp_hidden(), config.hidden)} {}

ShardedVariable SparseDitBlock::Compress(ForwardContext& context,
                                         const SparseDitConstants& constants,
                                         const BlockCompression& compression,
                                         const ShardedVariable& x) const {
  if (!constants.context_parallel) {
    return compression.Forward(context, x, constants.blocks);
  }
  const ShardedVariable runs =
      Transition(context, compression.Forward(context, x, constants.own_blocks),
                 Axis::kContext, AxisState::Replicate());
  const Shape& shape = runs.value().shape();
  const int64_t b = shape.dim(0), width = shape.dim(2);
  const Variable rows = GatherRows(
      context.tape,
      Reshape(context.tape, runs.variable, {b * shape.dim(1), width}),
      constants.block_rows);
  return {Reshape(context.tape, rows, {b, constants.blocks.small.most, width}),
          runs.states};
}

ShardedVariable SparseDitBlock::Attend(ForwardContext& context,
                                       const SparseDitConstants& constants,
                                       const ShardedVariable& n) const {
  // Four layers read it: its gradient is summed over tp once.
  const ShardedVariable whole =
      Transition(context, n, Axis::kTensor, AxisState::Replicate());
  const auto of_all_tokens = [&](const ShardedVariable& y) {
    if (!constants.context_parallel) return y;
    return Transition(context, y, Axis::kContext, AxisState::Replicate());
  };
  const ShardedVariable q = attention_.q.Forward(context, whole);
  const ShardedVariable k = attention_.k.Forward(context, whole);
  const ShardedVariable v = attention_.v.Forward(context, whole);
  const ShardedVariable attended =
      SparseAttention(context,
                      {q, of_all_tokens(k), of_all_tokens(v),
                       Compress(context, constants, attention_.compressed_k, k),
                       Compress(context, constants, attention_.compressed_v, v),
                       attention_.gates.Forward(context, whole)},
                      constants.blocks, config_.head_dim(),
                      {.top_k = config_.top_k,
                       .shifted = shifted_,
                       .first_query = constants.tokens.attention.begin});
  return attention_.out.Forward(context, attended);
}

ShardedVariable SparseDitBlock::AttendToCondition(
    ForwardContext& context, const SparseDitConstants& constants,
    const StreamState& state) const {
  const ShardedVariable n =
      Norm(context, NormKind::kLayer, state.x, cross_.norm_weight,
           cross_.norm_bias, kStreamNormEps);
  const ShardedVariable attended =
      CrossAttention(context, cross_.q.Forward(context, n),
                     cross_.kv.Forward(context, state.text), config_.head_dim(),
                     HeadNorms(), {.key_counts = constants.condition_counts});
  return cross_.out.Forward(context, attended);
}

void SparseDitBlock::Forward(ForwardContext& context,
                             const SparseDitConstants& constants,
                             StreamState& state) const {
  const std::vector<ShardedVariable> modulation =
      modulation_.Forward(context, state.silu_c);
  const ShardedVariable attended =
      Attend(context, constants,
             NormModulate(context, NormKind::kLayer, state.x,
                          modulation[kAttentionScale],
                          modulation[kAttentionShift], kStreamNormEps, keep_));
  state.x =
      GatedResidual(context, state.x, modulation[kAttentionGate], attended);
  state.x = Add(context, state.x, AttendToCondition(context, constants, state));
  const ShardedVariable inner = mlp_.in.Forward(
      context,
      NormModulate(context, NormKind::kLayer, state.x, modulation[kMlpScale],
                   modulation[kMlpShift], kStreamNormEps, keep_));
  state.x = GatedResidual(
      context, state.x, modulation[kMlpGate],
      mlp_.out.Forward(context, inner, {Activation::kGeluTanh, keep_}));
}

}  // namespace trireme
