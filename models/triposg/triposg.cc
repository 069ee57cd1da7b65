#include "models/triposg/triposg.h"

#include <utility>

#include "models/transformer/position_table.h"
#include "parallel/transitions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using Condition = TriposgConfig::Condition;

constexpr double kTimeScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
constexpr double kTableStddev = 0.5;
constexpr int64_t kColors = 3;
// Tensors of a boundary that are no skips.
constexpr size_t kBeforeSkips = 2;

// [b, width]: the published weights take sines first.
Tensor Sinusoid(const Tensor& sigmas, int64_t width, DType dtype) {
  const Tensor cosines_first =
      TimestepEmbedding(Scale(sigmas, kTimeScale), width, kMaxPeriod, dtype);
  const Tensor sines_first = Tensor::EmptyLike(cosines_first, "sinusoid");
  const int64_t b = cosines_first.dim(0), half = width / 2;
  for (const int64_t begin : {int64_t{0}, half}) {
    CopyStrided({.outer = b,
                 .run = half,
                 .from = {.offset = half - begin, .outer = width},
                 .to = {.offset = begin, .outer = width}},
                cosines_first, sines_first);
  }
  return sines_first;
}

// Rows and columns of a picture's patches.
std::vector<double> PatchPositions(const TriposgConfig& config) {
  const int64_t side = config.picture_side / config.patch;
  std::vector<double> positions;
  for (int64_t i = 0; i < side * side; ++i) {
    positions.push_back(static_cast<double>(i / side));
    positions.push_back(static_cast<double>(i % side));
  }
  return positions;
}

}  // namespace

std::vector<ShardedVariable> TriposgState::ToTensors() && {
  std::vector<ShardedVariable> tensors;
  tensors.push_back(std::move(x));
  if (!condition.variable.defined()) return tensors;
  tensors.push_back(std::move(condition));
  for (ShardedVariable& skip : skips) tensors.push_back(std::move(skip));
  return tensors;
}

TriposgState TriposgState::Of(std::vector<ShardedVariable> tensors) {
  TriposgState state;
  for (size_t i = 0; i < tensors.size(); ++i) {
    ShardedVariable& tensor = tensors[i];
    if (i == 0) {
      state.x = std::move(tensor);
    } else if (i < kBeforeSkips) {
      state.condition = std::move(tensor);
    } else {
      state.skips.push_back(std::move(tensor));
    }
  }
  return state;
}

struct TriposgPart::Embedding {
  ReplicatedLinear tokens;
  ReplicatedLinear time_in;
  ReplicatedLinear time_out;
  // Of a class, or of a picture's patches, whose places the table adds.
  Parameter* class_table = nullptr;
  std::unique_ptr<ReplicatedLinear> patches;
  Tensor places;
};

struct TriposgPart::Ending {
  AffineNorm norm;
  ReplicatedLinear linear;
};

TriposgPart::TriposgPart(ParameterStore& store, const ProcessGrid& grid,
                         const TriposgConfig& config,
                         const ChunkRequest& options)
    : config_(config),
      options_(options),
      device_(store.device()),
      dtype_(store.dtype()),
      layout_(grid, config.tokens(), config.condition_tokens(),
              options.sequence_parallel, /*text_stream=*/false),
      samples_(layout_.tokens()) {
  samples_.tokens = config.latents;
  const int64_t h = config.hidden;
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "token_embedding", config.channels, h),
        ReplicatedLinear(store, "time_embedding.in", h, config.mlp_hidden()),
        ReplicatedLinear(store, "time_embedding.out", config.mlp_hidden(), h)});
    if (config.condition == Condition::kClass) {
      embedding_->class_table = &store.Create(
          "class_embedding.table", {config.classes + 1, h}, {},
          {.kind = Initializer::Kind::kNormal, .stddev = kTableStddev},
          /*decay=*/false);
    }
    if (config.condition == Condition::kPicture) {
      embedding_->patches = std::make_unique<ReplicatedLinear>(
          store, "picture_embedding", kColors * config.patch * config.patch, h);
      embedding_->places =
          SinCosTable(device_, h, /*axes=*/2, PatchPositions(config), dtype_);
    }
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(std::make_unique<TriposgBlock>(
        store, grid, i, config,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (options.has_head(config.layers)) {
    store.BeginUnit();
    head_ = std::make_shared<Ending>(
        Ending{AffineNorm(store, "final.norm", h),
               ReplicatedLinear(
                   store, "final.linear", h, config.channels,
                   {.initializer = {.kind = Initializer::Kind::kZeros}})});
  }
}

std::vector<BoundarySpec> TriposgPart::Boundary(int block, int64_t b) const {
  const int64_t index = options_.blocks.first + block;
  const BoundarySpec x = {{b, layout_.tokens().local.count, config_.hidden},
                          dtype_,
                          layout_.TokenStates()};
  std::vector<BoundarySpec> specs = {x};
  if (index == config_.layers) return specs;
  specs.push_back({{b, config_.condition_tokens(), config_.condition_width()},
                   dtype_,
                   layout_.TextStates()});
  specs.insert(specs.end(), config_.skips_before(index), x);
  return specs;
}

ShardedVariable TriposgPart::EmbedTokens(ForwardContext& context,
                                         const TriposgInputs& inputs) const {
  const ShardedVariable tokens = embedding_->tokens.Forward(
      context,
      inputs.watch(context, sample_field(), BatchConstant(inputs.tokens)));
  const ShardedVariable time = embedding_->time_out.Forward(
      context,
      Activate(context, Activation::kGelu,
               embedding_->time_in.Forward(
                   context, BatchConstant(Sinusoid(inputs.sigmas,
                                                   config_.hidden, dtype_)))));
  const int64_t b = inputs.tokens.dim(0);
  const ShardedVariable as_token = {
      Reshape(context.tape, time.variable, {b, 1, config_.hidden}),
      time.states};
  ShardedVariable x = ConcatTokens(context, tokens, as_token);
  const TokenLayout& layout = layout_.tokens();
  if (layout.has_padding()) {
    x = ConcatTokens(
        context, x,
        BatchConstant(Tensor::Zeros(
            device_, {b, layout.padded - layout.tokens, config_.hidden},
            dtype_)));
  }
  const AxisStates states = layout_.TokenStates();
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    x = Transition(context, x, axis, states[axis]);
  }
  return x;
}

ShardedVariable TriposgPart::EmbedCondition(ForwardContext& context,
                                            const TriposgInputs& inputs) const {
  ShardedVariable condition;
  switch (config_.condition) {
    case Condition::kClass: {
      const ShardedVariable row = EmbeddingLookup(
          context, *embedding_->class_table, inputs.labels, BatchStates());
      condition = {Reshape(context.tape, row.variable,
                           {inputs.labels.dim(0), 1, config_.hidden}),
                   row.states};
      break;
    }
    case Condition::kFeatures:
      condition =
          inputs.watch(context, kTextField, BatchConstant(inputs.features));
      break;
    case Condition::kPicture:
      condition = AddConstant(
          context,
          embedding_->patches->Forward(
              context, BatchConstant(Patchify(inputs.picture, config_.patch))),
          embedding_->places);
      break;
  }
  return Transition(context, condition, Axis::kContext,
                    layout_.TextStates()[Axis::kContext]);
}

TriposgState TriposgPart::Embed(ForwardContext& context,
                                const TriposgInputs& inputs) const {
  CHECK(has_embedding());
  TriposgState state;
  state.x = EmbedTokens(context, inputs);
  state.condition = EmbedCondition(context, inputs);
  return state;
}

TriposgConstants TriposgPart::ConstantsOf(const Batch& microbatch,
                                          const Objective& objective,
                                          const InputWatch& /*watch*/) const {
  Tensor counts;
  if (config_.condition == Condition::kFeatures) {
    counts = objective.Condition(microbatch, kTextCountField, /*none=*/0);
  } else if (config_.condition == Condition::kPicture) {
    counts = objective.Condition(microbatch, kPictureCountField, /*none=*/0);
  }
  TriposgConstants constants =
      Constants(microbatch.size(), counts, objective.global_batch());
  constants.routed.step = microbatch.step;
  constants.routed.samples = microbatch.samples;
  constants.routed.kinds = objective.RouteKinds(microbatch);
  return constants;
}

TriposgInputs TriposgPart::InputsOf(const Batch& microbatch,
                                    const ModelInputs& prepared,
                                    const Objective& objective,
                                    const TriposgConstants&) const {
  TriposgInputs inputs;
  inputs.tokens = prepared.x;
  inputs.sigmas = prepared.times;
  const auto typed = [&](const Tensor& x) {
    return x.dtype() == dtype_ ? x : Cast(x, dtype_);
  };
  switch (config_.condition) {
    case Condition::kClass:
      inputs.labels =
          config_.classes > 0
              ? objective.Condition(microbatch, kLabelField,
                                    static_cast<int32_t>(config_.classes))
              : Full(device_, {microbatch.size()}, DType::kInt32, 0.0);
      break;
    case Condition::kFeatures:
      inputs.features = typed(microbatch[kTextField]);
      break;
    case Condition::kPicture:
      inputs.picture = typed(microbatch[kPixelsField]);
      break;
  }
  return inputs;
}

TriposgConstants TriposgPart::Constants(int64_t b,
                                        const Tensor& condition_counts,
                                        int64_t global_batch) const {
  TriposgConstants constants;
  const TokenLayout& tokens = layout_.tokens();
  constants.tokens = tokens;
  constants.context_parallel = layout_.context_parallel();
  constants.routed = {.positions = tokens.LocalPositions(),
                      .of_sample = tokens.tokens,
                      .global_batch = global_batch};
  if (tokens.has_padding()) {
    constants.token_counts =
        Full(device_, {b}, DType::kInt32, static_cast<double>(tokens.tokens));
  }
  constants.condition_counts = condition_counts;
  return constants;
}

void TriposgPart::RunBlock(ForwardContext& context, int block,
                           const TriposgConstants& constants,
                           TriposgState& state) const {
  const int64_t index = options_.blocks.first + block;
  ShardedVariable skip;
  if (config_.has_skip(index)) {
    skip = std::move(state.skips.back());
    state.skips.pop_back();
  }
  state.x = blocks_[block]->Forward(context, constants, state.x,
                                    config_.has_skip(index) ? &skip : nullptr,
                                    state.condition);
  // The two that read it from here on have gradients of their own.
  if (index < config_.half()) state.skips.push_back(Fork(context, state.x));
  if (index + 1 == config_.layers) state.condition = ShardedVariable();
}

ShardedVariable TriposgPart::Head(ForwardContext& context,
                                  const TriposgState& state) const {
  CHECK(has_head());
  const ShardedVariable y =
      head_->linear.Forward(context, head_->norm.Forward(context, state.x));
  return MaskTokens(context, {Scale(context.tape, y.variable, -1), y.states},
                    samples_.valid_local());
}

ShardedVariable TriposgPart::Predict(ForwardContext& context,
                                     const TriposgInputs& inputs,
                                     const Tensor& condition_counts) const {
  CHECK(has_embedding() && has_head());
  TriposgState state = Embed(context, inputs);
  const TriposgConstants constants =
      Constants(inputs.tokens.dim(0), condition_counts, /*global_batch=*/0);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

}  // namespace trireme
