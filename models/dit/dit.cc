#include "models/dit/dit.h"

#include <utility>

#include "models/transformer/position_table.h"
#include "parallel/transitions.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kNormEps = 1e-6;
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
                 const DitConfig& config, const ChunkRequest& options)
    : config_(config),
      options_(options),
      device_(store.device()),
      dtype_(store.dtype()),
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
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "patch_embedding", config.patch_channels(), h),
        ReplicatedLinear(store, "time_embedding.in", kDitTimeChannels, h,
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
          SinCosTable(device, config.hidden,
                      TokenPositions(config, tokens_.local), store.dtype());
    }
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(std::make_unique<DitBlock>(
        store, grid, i, config,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (options.has_head(config.layers)) {
    store.BeginUnit();
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
  state.x = embedding_->patches.Forward(
      context, inputs.watch(context, kPixelsField,
                            {Variable(LocalTokens(inputs.patches, tokens_)),
                             TokenStates()},
                            tokens_.local.begin));
  if (embedding_->position_table.defined()) {
    state.x = AddConstant(context, state.x, embedding_->position_table);
  }
  const Tensor sinusoid =
      TimestepEmbedding(Scale(inputs.sigmas, kTimeScale), kDitTimeChannels,
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
    AxisStates states = TextStates();
    const AxisState over_context = states[Axis::kContext];
    states[Axis::kContext] = AxisState::Invariant();
    state.text = Transition(
        context,
        embedding_->text->Forward(
            context,
            inputs.watch(
                context, kTextField,
                {Variable(LocalTokens(inputs.text, text_tokens_)), states},
                text_tokens_.local.begin)),
        Axis::kContext, over_context);
  }
  return state;
}

AxisStates DitPart::TokenStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Shard(1);
  if (options_.sequence_parallel) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates DitPart::TextStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  if (options_.sequence_parallel && config_.joint_text()) {
    states[Axis::kTensor] = AxisState::Shard(1);
  }
  return states;
}

AxisStates DitPart::SharedStates() const {
  AxisStates states = BatchStates();
  states[Axis::kTensor] = AxisState::Replicate();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  return states;
}

std::vector<BoundarySpec> DitPart::Boundary(int block, int64_t b) const {
  const int64_t h = config_.hidden;
  std::vector<BoundarySpec> specs = {
      {{b, tokens_.local.count, h}, dtype_, TokenStates()},
      {{b, h}, dtype_, SharedStates()}};
  // The model's last block gives no text in joint form.
  const bool text_ends =
      config_.joint_text() && options_.blocks.first + block == config_.layers;
  if (config_.text_tokens > 0 && !text_ends) {
    specs.push_back({{b, text_tokens_.local.count, h}, dtype_, TextStates()});
  }
  return specs;
}

DitConstants DitPart::Constants(int64_t b, const Tensor& text_counts,
                                int64_t global_batch) const {
  DitConstants constants;
  constants.rope = rope_;
  constants.tokens = tokens_;
  constants.context_parallel = context_parallel_;
  constants.routed = {.valid = tokens_.valid_local(),
                      .of_sample = config_.tokens(),
                      .global_batch = global_batch};
  if (tokens_.has_padding()) {
    constants.image_counts =
        Full(device_, {b}, DType::kInt32, static_cast<double>(tokens_.tokens));
  }
  constants.text_counts = text_counts;
  if (config_.joint_text()) {
    constants.joint_counts = AddOffset(
        text_counts, static_cast<int32_t>(config_.tokens()), "key counts");
  }
  return constants;
}

void DitPart::RunBlock(ForwardContext& context, int block,
                       const DitConstants& constants, DitState& state) const {
  blocks_[block]->Forward(context, constants, state);
}

ShardedVariable DitPart::Predict(ForwardContext& context,
                                 const DitInputs& inputs,
                                 const Tensor& text_counts) const {
  CHECK(has_embedding() && has_head());
  DitState state = Embed(context, inputs);
  const DitConstants constants =
      Constants(inputs.patches.dim(0), text_counts, /*global_batch=*/0);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

ShardedVariable DitPart::Head(ForwardContext& context,
                              const DitState& state) const {
  CHECK(has_head());
  const std::vector<ShardedVariable> modulation =
      head_->modulation.Forward(context, state.silu_c);
  const ShardedVariable prediction = head_->linear.Forward(
      context, NormModulate(context, NormKind::kLayer, state.x, modulation[1],
                            modulation[0], kNormEps));
  if (!tokens_.has_padding()) return prediction;
  return MaskTokens(context, prediction, tokens_.valid_local());
}

}  // namespace trireme
