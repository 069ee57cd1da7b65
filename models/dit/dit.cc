#include "models/dit/dit.h"

#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "parallel/recompute.h"
#include "parallel/transitions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kNormEps = 1e-6;
constexpr int64_t kTimeChannels = 256;
constexpr double kTimeScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
constexpr Initializer kSmallNormal = {.kind = Initializer::Kind::kNormal,
                                      .stddev = 0.02};

// Coordinates (row, column) of the range's tokens, row by row. Those of padding
// lie below the picture; nobody sees them.
std::vector<double> TokenPositions(const DitConfig& config, TokenRange range) {
  std::vector<double> positions;
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t token = range.begin + i;
    const int64_t row = token / config.columns();
    const int64_t column = token % config.columns();
    positions.push_back(static_cast<double>(row));
    positions.push_back(static_cast<double>(column));
  }
  return positions;
}

// The fixed table of DiT: the first half of the channels encodes the column,
// the second the row; in each, sines then cosines.
Tensor SinCosTable(Device& device, const DitConfig& config, TokenRange range,
                   DType dtype) {
  const Shape shape{range.count, config.hidden};
  if (device.dry()) {
    return Cast(Tensor::Empty(device, shape, DType::kFloat32,
                              MemoryCategory::kParameters, "position table"),
                dtype, "position table");
  }
  const int64_t quarter = config.hidden / 4;
  std::vector<float> values;
  values.reserve(shape.num_elements());
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t token = range.begin + i;
    const int64_t coordinates[2] = {token % config.columns(),
                                    token / config.columns()};
    for (const int64_t coordinate : coordinates) {
      for (const bool cosine : {false, true}) {
        for (int64_t k = 0; k < quarter; ++k) {
          const double angle =
              coordinate *
              std::pow(kMaxPeriod, -static_cast<double>(k) / quarter);
          values.push_back(
              static_cast<float>(cosine ? std::cos(angle) : std::sin(angle)));
        }
      }
    }
  }
  return Cast(Upload<float>(device, shape, values, MemoryCategory::kParameters,
                            "position table"),
              dtype, "position table");
}

// Everything that a microbatch brings in is split over dp by sample.
AxisStates BatchStates() {
  AxisStates states;
  states[Axis::kData] = AxisState::Shard(0);
  return states;
}

ShardedVariable BatchConstant(const Tensor& value) {
  return {Variable(value), BatchStates()};
}

}  // namespace

struct DitPart::Embedding {
  ReplicatedLinear patches;
  ReplicatedLinear time_in;
  ReplicatedLinear time_out;
  Parameter* class_table = nullptr;
  std::unique_ptr<ReplicatedLinear> text;
  Tensor position_table;
};

struct DitPart::FinalLayer {
  AdaptiveModulation modulation;
  ReplicatedLinear linear;
};

DitPart::DitPart(ParameterStore& store, const ProcessGrid& grid,
                 const DitConfig& config, const DitPartOptions& options)
    : config_(config),
      options_(options),
      context_parallel_(grid.size(Axis::kContext) > 1),
      tokens_(LayOutTokens(config.tokens(), grid, /*over_context=*/true,
                           options.sequence_parallel)),
      // Every rank of cp holds the whole text.
      text_tokens_(
          LayOutTokens(config.text_tokens, grid, /*over_context=*/false,
                       options.sequence_parallel && config.joint_text())) {
  const int64_t h = config.hidden;
  Device& device = store.device();
  const DType compute =
      store.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  if (config.positions == Dit::ROPE) {
    const int64_t per_axis = config.head_dim() / 2;
    const int64_t axis_dims[2] = {per_axis, per_axis};
    rope_ = MakeRopeTable(device, axis_dims,
                          TokenPositions(config, tokens_.attention), kMaxPeriod,
                          compute);
  }
  if (options.embedding.value_or(options.blocks.first == 0)) {
    embedding_unit_ = store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "patch_embedding", config.patch_channels(), h),
        ReplicatedLinear(store, "time_embedding.in", kTimeChannels, h,
                         {.initializer = kSmallNormal}),
        ReplicatedLinear(store, "time_embedding.out", h, h,
                         {.initializer = kSmallNormal})});
    if (config.classes > 0) {
      embedding_->class_table =
          &store.Create("class_embedding.table", {config.classes + 1, h}, {},
                        {.kind = Initializer::Kind::kNormal,
                         .stddev = config.class_table_stddev},
                        /*decay=*/false);
    }
    if (config.text_tokens > 0) {
      embedding_->text = std::make_unique<ReplicatedLinear>(
          store, "text_embedding", config.text_width, h);
    }
    if (config.positions == Dit::SINCOS) {
      embedding_->position_table =
          SinCosTable(device, config, tokens_.local, store.dtype());
    }
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    block_units_.push_back(store.BeginUnit());
    blocks_.push_back(std::make_unique<DitBlock>(
        store, grid, fmt::format("blocks.{}", i), config,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue,
        /*last=*/i + 1 == config.layers));
  }
  if (options.head.value_or(options.blocks.end == config.layers)) {
    head_unit_ = store.BeginUnit();
    head_ = std::make_shared<FinalLayer>(
        FinalLayer{AdaptiveModulation(store, grid, "final.modulation", h, 2),
                   ReplicatedLinear(
                       store, "final.linear", h, config.patch_channels(),
                       {.initializer = {.kind = Initializer::Kind::kZeros}})});
  }
}

DitState DitPart::Embed(ForwardContext& context,
                        const DitInputs& inputs) const {
  CHECK(has_embedding());
  DitState state;
  // The batch has no gradient: the executor releases the unit after backward.
  if (ParameterResidency* residency = context.parallel.residency()) {
    residency->Acquire(embedding_unit_, PassDirection::kForward);
  }
  state.x = embedding_->patches.Forward(
      context,
      {Variable(LocalTokens(inputs.patches, tokens_)),
       TokenStates(/*over_context=*/true, options_.sequence_parallel)});
  if (embedding_->position_table.defined()) {
    state.x = AddConstant(context, state.x, embedding_->position_table);
  }
  const Tensor sinusoid =
      TimestepEmbedding(Scale(inputs.sigmas, kTimeScale), kTimeChannels,
                        kMaxPeriod, inputs.patches.dtype());
  ShardedVariable c = embedding_->time_out.Forward(
      context,
      Activate(context, Activation::kSilu,
               embedding_->time_in.Forward(context, BatchConstant(sinusoid))));
  if (embedding_->class_table != nullptr) {
    c = Add(context, c,
            EmbeddingLookup(context, *embedding_->class_table, inputs.labels,
                            BatchStates()));
  }
  state.silu_c = Transition(context, Activate(context, Activation::kSilu, c),
                            Axis::kTensor, AxisState::Replicate());
  if (context_parallel_) {
    state.silu_c = Transition(context, state.silu_c, Axis::kContext,
                              AxisState::Replicate());
  }
  if (embedding_->text != nullptr) {
    state.text = embedding_->text->Forward(
        context,
        {Variable(LocalTokens(inputs.text, text_tokens_)),
         TokenStates(/*over_context=*/false,
                     options_.sequence_parallel && config_.joint_text())});
    if (context_parallel_) {
      state.text = Transition(context, state.text, Axis::kContext,
                              AxisState::Replicate());
    }
  }
  state.x = EndUnit(context, state.x, embedding_unit_);
  return state;
}

AxisStates DitPart::TokenStates(bool over_context, bool over_tensor) const {
  AxisStates states = BatchStates();
  if (over_context && context_parallel_) {
    states[Axis::kContext] = AxisState::Shard(1);
  }
  if (over_tensor) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates DitPart::SharedStates() const {
  AxisStates states = BatchStates();
  states[Axis::kTensor] = AxisState::Replicate();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  return states;
}

DitState DitPart::Receive(const std::vector<Variable>& inputs) const {
  DitState state;
  state.x = {inputs[0],
             TokenStates(/*over_context=*/true, options_.sequence_parallel)};
  state.silu_c = {inputs[1], SharedStates()};
  if (config_.text_tokens > 0) {
    state.text = {inputs[2], TokenStates(/*over_context=*/false,
                                         options_.sequence_parallel &&
                                             config_.joint_text())};
    if (context_parallel_) {
      state.text.states[Axis::kContext] = AxisState::Replicate();
    }
  }
  return state;
}

DitState DitPart::RunBlocks(ForwardContext& context, DitState state,
                            const Tensor& text_counts) const {
  DitConstants constants;
  constants.rope = rope_;
  constants.tokens = tokens_;
  constants.context_parallel = context_parallel_;
  if (tokens_.has_padding()) {
    constants.image_counts =
        Full(context.tape.device(), {state.x.value().dim(0)}, DType::kInt32,
             static_cast<double>(tokens_.tokens));
  }
  constants.text_counts = text_counts;
  if (config_.joint_text()) {
    constants.joint_counts = AddOffset(
        text_counts, static_cast<int32_t>(config_.tokens()), "key counts");
  }
  const int64_t recomputed =
      options_.recompute.kind == BlockRecompute::Kind::kFull
          ? options_.recompute.blocks
          : 0;
  for (int64_t i = 0; i < static_cast<int64_t>(blocks_.size()); ++i) {
    const auto& block = blocks_[i];
    const bool with_text = state.text.variable.defined();
    const auto run = [block = block.get(), constants, with_text](
                         ForwardContext& inner,
                         const std::vector<ShardedVariable>& inputs) {
      DitState local;
      local.x = inputs[0];
      local.silu_c = inputs[1];
      if (with_text) local.text = inputs[2];
      block->Forward(inner, constants, local);
      std::vector<ShardedVariable> outputs = {local.x};
      if (local.text.variable.defined()) outputs.push_back(local.text);
      return outputs;
    };
    const int unit = block_units_[i];
    std::vector<ShardedVariable> inputs = {BeginUnit(context, state.x, unit),
                                           state.silu_c};
    if (with_text) inputs.push_back(state.text);
    std::vector<ShardedVariable> outputs =
        i < recomputed ? Recompute(context, "block", inputs, run)
                       : run(context, inputs);
    state.x = EndUnit(context, outputs[0], unit);
    // Cross-attention reads the text and leaves it as it is; joint attention
    // returns it, except from the last block.
    if (config_.joint_text()) {
      state.text = outputs.size() > 1 ? outputs[1] : ShardedVariable();
    }
  }
  return state;
}

ShardedVariable DitPart::Head(ForwardContext& context,
                              const DitState& state) const {
  CHECK(has_head());
  const ShardedVariable x = BeginUnit(context, state.x, head_unit_);
  const std::vector<ShardedVariable> modulation =
      head_->modulation.Forward(context, state.silu_c);
  ShardedVariable prediction = head_->linear.Forward(
      context, NormModulate(context, NormKind::kLayer, x, modulation[1],
                            modulation[0], kNormEps));
  prediction = EndUnit(context, prediction, head_unit_);
  if (!tokens_.has_padding()) return prediction;
  return MaskTokens(context, prediction, tokens_.valid_local());
}

}  // namespace trireme
