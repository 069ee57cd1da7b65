#include "models/triposg/triposg.h"

#include <algorithm>
#include <utility>

#include "parallel/grid/transitions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/schedules/block_ranks.h"

namespace trireme {
namespace {

constexpr double kTimeScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
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
  CrossConditionEmbedding condition;
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
      layout_(grid, config.tokens(), config.condition.tokens(),
              options.sequence_parallel, /*text_stream=*/false),
      samples_(layout_.tokens()) {
  samples_.tokens = config.latents;
  const int64_t h = config.hidden;
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "token_embedding", config.channels, h),
        ReplicatedLinear(store, "time_embedding.in", h, config.mlp_hidden()),
        ReplicatedLinear(store, "time_embedding.out", config.mlp_hidden(), h),
        CrossConditionEmbedding(store, config.condition, h)});
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
  specs.push_back({{b, config_.condition.tokens(), config_.condition_width()},
                   dtype_,
                   layout_.TextStates()});
  const int64_t made = std::min(index, config_.half());
  for (int64_t maker = 0; maker < made; ++maker) {
    const int64_t reader = config_.ReaderOf(maker);
    if (reader < index) break;
    const bool stays = StaysOnRank(options_.block_ranks, maker, reader);
    // Neither made nor read here, it waits on another rank.
    if (stays && maker < options_.blocks.first &&
        reader >= options_.blocks.end) {
      continue;
    }
    specs.push_back(x);
    specs.back().skip_of = maker;
    specs.back().stays = stays;
  }
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

TriposgState TriposgPart::Embed(ForwardContext& context,
                                const TriposgInputs& inputs) const {
  CHECK(has_embedding());
  TriposgState state;
  state.x = EmbedTokens(context, inputs);
  state.condition = Transition(
      context,
      embedding_->condition.Forward(context, inputs.condition, inputs.watch),
      Axis::kContext, layout_.TextStates()[Axis::kContext]);
  return state;
}

TriposgConstants TriposgPart::ConstantsOf(const Batch& microbatch,
                                          const Objective& objective,
                                          const InputWatch& /*watch*/) const {
  TriposgConstants constants =
      Constants(microbatch.size(),
                ConditionCountsOf(config_.condition, microbatch, objective),
                objective.global_batch());
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
  inputs.condition = ConditionInputsOf(config_.condition, microbatch, objective,
                                       device_, dtype_);
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
                                     const TriposgConstants& constants) const {
  CHECK(has_embedding() && has_head());
  TriposgState state = Embed(context, inputs);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

}  // namespace trireme
