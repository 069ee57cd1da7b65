#include "models/mmdit/mmdit.h"

#include <utility>

#include "models/transformer/position_table.h"
#include "parallel/transitions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kTimeScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
constexpr Initializer kSmallNormal = {.kind = Initializer::Kind::kNormal,
                                      .stddev = 0.02};

// Coordinates (0, row, column) of the range's tokens, without the axes that
// have no channels. Those of padding lie below the picture; nobody sees them.
RopeTable MakeRope(Device& device, const MmditConfig& config, TokenRange range,
                   DType dtype) {
  std::vector<int64_t> axes;
  for (const int64_t channels : config.rope_axes) {
    if (channels > 0) axes.push_back(channels);
  }
  std::vector<double> positions;
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t token = range.begin + i;
    const int64_t coordinates[3] = {0, token / config.columns(),
                                    token % config.columns()};
    for (size_t axis = 0; axis < config.rope_axes.size(); ++axis) {
      if (config.rope_axes[axis] > 0) {
        positions.push_back(static_cast<double>(coordinates[axis]));
      }
    }
  }
  return MakeRopeTable(device, axes, positions, kMaxPeriod, dtype);
}

// Coordinates (row, column) of the range's tokens in the middle of the square
// table, which pictures of every size share.
std::vector<double> TableCoordinates(const MmditConfig& config,
                                     TokenRange range) {
  const int64_t top = (config.position_table - config.rows()) / 2;
  const int64_t left = (config.position_table - config.columns()) / 2;
  std::vector<double> coordinates;
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t token = range.begin + i;
    coordinates.push_back(
        config.position_coordinate(top + token / config.columns()));
    coordinates.push_back(
        config.position_coordinate(left + token % config.columns()));
  }
  return coordinates;
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

// pooled[b, w], with zeros for samples whose count is 0.
Tensor WithoutEmptyTexts(const Tensor& pooled, const Tensor& text_counts,
                         int64_t text_tokens) {
  const Tensor counts_for =
      Full(pooled.device(), {text_tokens + 1, 1}, pooled.dtype(), 1.0);
  ZeroSlice(counts_for, 0, 0, 1);
  const Tensor factors = RepeatOverTokens(GatherRows(counts_for, text_counts),
                                          pooled.dim(1), "text factors");
  return Multiply(pooled, factors.Reshape(pooled.shape()));
}

// Linear, SiLU, Linear: what makes a conditioning of a vector for each sample.
struct ConditionMlp {
  ConditionMlp(ParameterStore& store, const std::string& name, int64_t in,
               int64_t hidden)
      : first(store, name + ".in", in, hidden, {.initializer = kSmallNormal}),
        second(store, name + ".out", hidden, hidden,
               {.initializer = kSmallNormal}) {}

  ShardedVariable Forward(ForwardContext& context,
                          const ShardedVariable& x) const {
    return second.Forward(context, Activate(context, Activation::kSilu,
                                            first.Forward(context, x)));
  }

  ReplicatedLinear first;
  ReplicatedLinear second;
};

Tensor Sinusoid(const Tensor& scalars, DType dtype) {
  return TimestepEmbedding(Scale(scalars, kTimeScale), kMmditTimeChannels,
                           kMaxPeriod, dtype);
}

}  // namespace

struct MmditPart::Embedding {
  Embedding(ParameterStore& store, const MmditConfig& config)
      : patches(store, "patch_embedding", config.patch_channels(),
                config.hidden),
        time(store, "time_embedding", kMmditTimeChannels, config.hidden),
        pooled(store, "pooled_embedding", config.pooled_width, config.hidden),
        text(store, "text_embedding", config.text_width, config.hidden) {
    if (config.guidance.has_value()) {
      guidance = std::make_unique<ConditionMlp>(
          store, "guidance_embedding", kMmditTimeChannels, config.hidden);
    }
  }

  ReplicatedLinear patches;
  ConditionMlp time;
  ConditionMlp pooled;
  ReplicatedLinear text;
  std::unique_ptr<ConditionMlp> guidance;
  Tensor position_table;
};

struct MmditPart::FinalLayer {
  AdaptiveModulation modulation;
  ReplicatedLinear linear;
};

MmditPart::MmditPart(ParameterStore& store, const ProcessGrid& grid,
                     const MmditConfig& config, const ChunkRequest& options)
    : config_(config),
      options_(options),
      dtype_(store.dtype()),
      context_parallel_(grid.size(Axis::kContext) > 1),
      tokens_(LayOutTokens(config.tokens(), grid, /*over_context=*/true,
                           options.sequence_parallel)),
      // Every rank of cp holds the whole text.
      text_tokens_(LayOutTokens(config.text_tokens, grid,
                                /*over_context=*/false,
                                options.sequence_parallel)) {
  Device& device = store.device();
  if (config.positions == Mmdit::ROPE) {
    rope_ =
        MakeRope(device, config, tokens_.attention,
                 dtype_ == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  }
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(store, config);
    if (config.positions == Mmdit::SINCOS) {
      embedding_->position_table =
          SinCosTable(device, config.hidden,
                      TableCoordinates(config, tokens_.local), dtype_);
    }
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(MakeMmditBlock(
        store, grid, config, i,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (options.has_head(config.layers())) {
    store.BeginUnit();
    head_ = std::make_shared<FinalLayer>(FinalLayer{
        AdaptiveModulation(store, grid, "final.modulation", config.hidden, 2),
        ReplicatedLinear(
            store, "final.linear", config.hidden, config.patch_channels(),
            {.initializer = {.kind = Initializer::Kind::kZeros}})});
  }
}

MmditState MmditPart::Embed(ForwardContext& context,
                            const MmditInputs& inputs) const {
  CHECK(has_embedding());
  MmditState state;
  state.x = embedding_->patches.Forward(
      context, inputs.watch(context, kPixelsField,
                            {Variable(LocalTokens(inputs.patches, tokens_)),
                             TokenStates()},
                            tokens_.local.begin));
  if (embedding_->position_table.defined()) {
    state.x = AddConstant(context, state.x, embedding_->position_table);
  }
  ShardedVariable c = embedding_->time.Forward(
      context, BatchConstant(Sinusoid(inputs.sigmas, dtype_)));
  if (embedding_->guidance != nullptr) {
    c = Add(context, c,
            embedding_->guidance->Forward(
                context, BatchConstant(Sinusoid(inputs.guidance, dtype_))));
  }
  c = Add(context, c,
          embedding_->pooled.Forward(
              context, inputs.watch(context, kPooledTextField,
                                    BatchConstant(WithoutEmptyTexts(
                                        inputs.pooled, inputs.text_counts,
                                        config_.text_tokens)))));
  state.silu_c = Transition(context, Activate(context, Activation::kSilu, c),
                            Axis::kTensor, AxisState::Replicate());
  if (context_parallel_) {
    state.silu_c = Transition(context, state.silu_c, Axis::kContext,
                              AxisState::Replicate());
  }
  AxisStates states = TextStates();
  const AxisState over_context = states[Axis::kContext];
  states[Axis::kContext] = AxisState::Invariant();
  state.text = Transition(
      context,
      embedding_->text.Forward(
          context,
          inputs.watch(
              context, kTextField,
              {Variable(LocalTokens(inputs.text, text_tokens_)), states},
              text_tokens_.local.begin)),
      Axis::kContext, over_context);
  return state;
}

AxisStates MmditPart::TokenStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Shard(1);
  if (options_.sequence_parallel) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates MmditPart::TextStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  if (options_.sequence_parallel) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates MmditPart::SharedStates() const {
  AxisStates states = BatchStates();
  states[Axis::kTensor] = AxisState::Replicate();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  return states;
}

std::vector<BoundarySpec> MmditPart::Boundary(int block, int64_t b) const {
  const int64_t h = config_.hidden;
  std::vector<BoundarySpec> specs = {
      {{b, tokens_.local.count, h}, dtype_, TokenStates()},
      {{b, h}, dtype_, SharedStates()}};
  if (options_.blocks.first + block < config_.layers()) {
    specs.push_back({{b, text_tokens_.local.count, h}, dtype_, TextStates()});
  }
  return specs;
}

MmditConstants MmditPart::Constants(const Tensor& text_counts) const {
  return {
      .rope = rope_,
      .tokens = tokens_,
      .context_parallel = context_parallel_,
      .text_counts = text_counts,
      .joint_counts = AddOffset(
          text_counts, static_cast<int32_t>(config_.tokens()), "key counts")};
}

void MmditPart::RunBlock(ForwardContext& context, int block,
                         const MmditConstants& constants,
                         MmditState& state) const {
  blocks_[block]->Forward(context, constants, state);
}

ShardedVariable MmditPart::Predict(ForwardContext& context,
                                   const MmditInputs& inputs) const {
  CHECK(has_embedding() && has_head());
  MmditState state = Embed(context, inputs);
  const MmditConstants constants = Constants(inputs.text_counts);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

ShardedVariable MmditPart::Head(ForwardContext& context,
                                const MmditState& state) const {
  CHECK(has_head());
  const std::vector<ShardedVariable> modulation =
      head_->modulation.Forward(context, state.silu_c);
  const ShardedVariable prediction = head_->linear.Forward(
      context, NormModulate(context, NormKind::kLayer, state.x, modulation[1],
                            modulation[0], kStreamNormEps));
  if (!tokens_.has_padding()) return prediction;
  return MaskTokens(context, prediction, tokens_.valid_local());
}

}  // namespace trireme
