#include "models/sparse_dit/sparse_dit.h"

#include <algorithm>
#include <utility>

#include "models/sparse_dit/block_runs.h"
#include "models/transformer/embeddings.h"
#include "models/transformer/modulated_stream.h"
#include "models/transformer/position_table.h"
#include "parallel/grid/transitions.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

constexpr int64_t kAxes = 3;

int64_t RunsOf(const ProcessGrid& grid) { return grid.size(Axis::kContext); }

// x [b, s, h] with rows [b·s, h] as `rows` says: [b, places, h].
ShardedVariable Rearranged(ForwardContext& context, const ShardedVariable& x,
                           const Tensor& rows) {
  const Shape& shape = x.value().shape();
  const int64_t b = shape.dim(0), width = shape.dim(2);
  const Variable moved = GatherRows(
      context.tape,
      Reshape(context.tape, x.variable, {b * shape.dim(1), width}), rows);
  return {Reshape(context.tape, moved, {b, rows.num_elements() / b, width}),
          x.states};
}

// Sines and cosines of each coordinate of one axis.
Tensor AxisTable(Device& device, const SparseDitConfig& config, DType dtype) {
  std::vector<double> coordinates;
  for (int64_t i = 0; i < config.resolution; ++i) {
    coordinates.push_back(static_cast<double>(i));
  }
  return SinCosTable(device, config.hidden / (2 * kAxes) * 2, /*axes=*/1,
                     coordinates, dtype);
}

}  // namespace

struct SparseDitPart::Embedding {
  ReplicatedLinear tokens;
  ConditionMlp time;
  CrossConditionEmbedding condition;
  Tensor axis_table;  // [resolution, 2n]
};

struct SparseDitPart::Ending {
  Parameter* norm_weight;
  Parameter* norm_bias;
  ReplicatedLinear linear;
};

SparseDitPart::SparseDitPart(ParameterStore& store, const ProcessGrid& grid,
                             const SparseDitConfig& config,
                             const ChunkRequest& options)
    : config_(config),
      options_(options),
      device_(store.device()),
      dtype_(store.dtype()),
      sample_tokens_(LayOutTokens(config.tokens, grid, /*over_context=*/true,
                                  options.sequence_parallel)),
      layout_(grid, RunsOf(grid) * MostTokensOfRun(config.tokens, RunsOf(grid)),
              config.condition.tokens(), options.sequence_parallel,
              /*text_stream=*/false) {
  const int64_t h = config.hidden;
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "token_embedding", config.channels, h),
        ConditionMlp(store, "time_embedding", kScalarChannels, h),
        CrossConditionEmbedding(store, config.condition, h),
        AxisTable(device_, config, dtype_)});
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(std::make_unique<SparseDitBlock>(
        store, grid, i, config,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (options.has_head(config.layers)) {
    store.BeginUnit();
    head_ = std::make_shared<Ending>(
        Ending{&store.Create("final.norm.weight", {h}, {},
                             {.kind = Initializer::Kind::kOnes},
                             /*decay=*/false),
               &store.Create("final.norm.bias", {h}, {},
                             {.kind = Initializer::Kind::kZeros},
                             /*decay=*/false),
               ReplicatedLinear(
                   store, "final.linear", h, config.channels,
                   {.initializer = {.kind = Initializer::Kind::kZeros}})});
  }
}

std::vector<BoundarySpec> SparseDitPart::Boundary(int /*block*/,
                                                  int64_t b) const {
  std::vector<BoundarySpec> specs =
      layout_.Boundary(b, config_.hidden, dtype_, /*with_text=*/false);
  // Behind the last block, too: a partial pipeline's may be any.
  specs.push_back({{b, config_.condition.tokens(), config_.condition_width()},
                   dtype_,
                   layout_.TextStates()});
  return specs;
}

Tensor SparseDitPart::Places(const Tensor& voxels) const {
  const TokenRange& local = layout_.tokens().local;
  const int64_t b = voxels.dim(0), width = embedding_->axis_table.dim(1);
  const std::vector<int32_t> coordinates = Download<int32_t>(voxels);
  const Tensor places =
      Tensor::Zeros(device_, {b, local.count, config_.hidden}, dtype_);
  for (int64_t axis = 0; axis < kAxes; ++axis) {
    std::vector<int32_t> rows(b * local.count, 0);
    for (size_t i = 0; !coordinates.empty() && i < rows.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      const int64_t slot = row / local.count * layout_.tokens().padded +
                           local.begin + row % local.count;
      // Padding, which nobody sees, lies at 0.
      rows[i] =
          std::clamp<int32_t>(coordinates[slot * kAxes + axis], 0,
                              static_cast<int32_t>(config_.resolution - 1));
    }
    const Tensor of_axis = GatherRows(
        embedding_->axis_table,
        Upload<int32_t>(device_, {b * local.count}, rows,
                        MemoryCategory::kActivations, "coordinates"));
    CopyStrided({.outer = b * local.count,
                 .run = width,
                 .from = {.outer = width},
                 .to = {.offset = axis * width, .outer = config_.hidden}},
                of_axis, places);
  }
  return places;
}

ShardedVariable SparseDitPart::InSlots(ForwardContext& context,
                                       const ShardedVariable& whole,
                                       const Tensor& token_of_slot) const {
  const AxisStates states = layout_.TokenStates();
  ShardedVariable x = Rearranged(context, whole, token_of_slot);
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    x = Transition(context, x, axis, states[axis]);
  }
  return x;
}

ShardedVariable SparseDitPart::OutOfSlots(ForwardContext& context,
                                          const ShardedVariable& y,
                                          const Tensor& slot_of_token) const {
  ShardedVariable whole = y;
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    whole = Transition(context, whole, axis, AxisState::Invariant());
  }
  whole = Rearranged(context, whole, slot_of_token);
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    whole = Transition(context, whole, axis, y.states[axis]);
  }
  return whole;
}

Tensor SparseDitPart::Mask(const Tensor& counts) const {
  const TokenRange& local = sample_tokens_.local;
  const int64_t b = counts.num_elements();
  const Tensor mask =
      Full(device_, {b, local.count, config_.channels}, dtype_, 1.0);
  const std::vector<int32_t> real = Download<int32_t>(counts);
  for (int64_t i = 0; i < static_cast<int64_t>(real.size()); ++i) {
    const int64_t from =
        std::clamp<int64_t>(real[i] - local.begin, 0, local.count);
    if (from < local.count) {
      ZeroSlice(mask.Slice(i, i + 1), 1, from, local.count);
    }
  }
  return mask;
}

SparseDitConstants SparseDitPart::Constants(
    const Tensor& voxels, const Tensor& counts,
    const Tensor& condition_counts) const {
  SparseDitConstants constants;
  constants.tokens = layout_.tokens();
  constants.context_parallel = layout_.context_parallel();
  constants.condition_counts = condition_counts;
  const int64_t b = voxels.dim(0), padded = layout_.tokens().padded;
  const int64_t slots = layout_.tokens().attention.count;
  const int64_t ranks = padded / slots;
  const BlockRunSizes sizes = {.batch = b,
                               .tokens = config_.tokens,
                               .padded_tokens = sample_tokens_.padded,
                               .resolution = config_.resolution,
                               .runs = ranks,
                               .slots = slots};
  const BlockRuns runs =
      CutIntoRuns(Download<int32_t>(voxels), Download<int32_t>(counts), sizes);
  const auto upload = [&](const Shape& shape,
                          const std::vector<int32_t>& values) {
    return Upload<int32_t>(device_, shape, values, MemoryCategory::kActivations,
                           "runs of blocks");
  };
  constants.voxels = upload({b, padded, kAxes}, runs.voxels);
  const Tensor tokens_of_runs = upload({b, ranks}, runs.counts);
  constants.blocks =
      PartitionTokens(constants.voxels, tokens_of_runs, config_.resolution);
  if (constants.context_parallel) {
    const int64_t run = layout_.tokens().attention.begin / slots;
    constants.own_blocks = PartitionTokens(
        CopySlice(constants.voxels, 1, run * slots, (run + 1) * slots,
                  "voxels of a run"),
        CopySlice(tokens_of_runs, 1, run, run + 1, "tokens of a run"),
        config_.resolution);
    constants.block_rows =
        upload({b * constants.blocks.small.most},
               RowsOfBlocks(runs, sizes, constants.own_blocks.small.most,
                            constants.blocks.small.most));
  }
  if (has_embedding()) {
    constants.token_of_slot = upload({b * padded}, runs.token_of_slot);
  }
  if (has_head()) {
    constants.slot_of_token =
        upload({b * sample_tokens_.padded}, runs.slot_of_token);
    constants.mask = Mask(counts);
  }
  return constants;
}

SparseDitConstants SparseDitPart::ConstantsOf(
    const Batch& microbatch, const Objective& objective,
    const InputWatch& /*watch*/) const {
  return Constants(microbatch[kVoxelsField], microbatch[kVoxelCountField],
                   ConditionCountsOf(config_.condition, microbatch, objective));
}

SparseDitInputs SparseDitPart::InputsOf(
    const Batch& microbatch, const ModelInputs& prepared,
    const Objective& objective, const SparseDitConstants& constants) const {
  SparseDitInputs inputs;
  inputs.tokens = prepared.x;
  inputs.voxels = constants.voxels;
  inputs.token_of_slot = constants.token_of_slot;
  inputs.sigmas = prepared.times;
  inputs.condition = ConditionInputsOf(config_.condition, microbatch, objective,
                                       device_, dtype_);
  return inputs;
}

StreamState SparseDitPart::Embed(ForwardContext& context,
                                 const SparseDitInputs& inputs) const {
  CHECK(has_embedding());
  StreamState state;
  state.x = embedding_->tokens.Forward(
      context, InSlots(context,
                       inputs.watch(context, sample_field(),
                                    BatchConstant(inputs.tokens)),
                       inputs.token_of_slot));
  state.x = Add(context, state.x,
                {Variable(Places(inputs.voxels)), layout_.TokenStates()});
  state.silu_c = layout_.Conditioning(
      context, embedding_->time.Forward(
                   context, BatchConstant(Sinusoid(inputs.sigmas, dtype_))));
  state.text = Transition(
      context,
      embedding_->condition.Forward(context, inputs.condition, inputs.watch),
      Axis::kContext, layout_.TextStates()[Axis::kContext]);
  return state;
}

void SparseDitPart::RunBlock(ForwardContext& context, int block,
                             const SparseDitConstants& constants,
                             StreamState& state) const {
  blocks_[block]->Forward(context, constants, state);
}

ShardedVariable SparseDitPart::Head(ForwardContext& context,
                                    const StreamState& state,
                                    const SparseDitConstants& constants) const {
  CHECK(has_head());
  const ShardedVariable y = OutOfSlots(
      context,
      head_->linear.Forward(
          context, Norm(context, NormKind::kLayer, state.x, head_->norm_weight,
                        head_->norm_bias, kStreamNormEps)),
      constants.slot_of_token);
  return {Multiply(context.tape, y.variable, Variable(constants.mask)),
          y.states};
}

ShardedVariable SparseDitPart::Predict(
    ForwardContext& context, const SparseDitInputs& inputs,
    const SparseDitConstants& constants) const {
  CHECK(has_embedding() && has_head());
  SparseDitInputs placed = inputs;
  placed.voxels = constants.voxels;
  placed.token_of_slot = constants.token_of_slot;
  StreamState state = Embed(context, placed);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state, constants);
}

}  // namespace trireme
