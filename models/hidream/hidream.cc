#include "models/hidream/hidream.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "models/transformer/embeddings.h"
#include "parallel/grid/transitions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

const LinearOptions kNoBias = {.bias = false};

}  // namespace

struct HidreamPart::Embedding {
  Embedding(ParameterStore& store, const HidreamConfig& config)
      : patches(store, "patch_embedding", config.patch_channels(),
                config.hidden),
        time(store, "time_embedding", kScalarChannels, config.hidden),
        pooled(store, "pooled_embedding", config.pooled_width, config.hidden),
        text(store, "text_embedding", config.text_width, config.hidden,
             kNoBias),
        last_tap(store, "last_tap", config.layer_width, config.hidden,
                 kNoBias) {}

  ReplicatedLinear patches;
  ConditionMlp time;
  ConditionMlp pooled;
  ReplicatedLinear text;
  ReplicatedLinear last_tap;
};

HidreamPart::HidreamPart(ParameterStore& store, const ProcessGrid& grid,
                         const HidreamConfig& config,
                         const ChunkRequest& options)
    : config_(config),
      options_(options),
      dtype_(store.dtype()),
      grid_(grid),
      layout_(grid, config.tokens(), config.carried_tokens(),
              options.sequence_parallel, /*text_stream=*/true),
      rope_(PictureRope(store.device(), config.rope_axes, {config.columns()},
                        layout_.tokens().attention, dtype_)) {
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(store, config);
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(MakeHidreamBlock(
        store, grid, config, i,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
    taps_.push_back(i + 1 == config.layers()
                        ? nullptr
                        : std::make_unique<ReplicatedLinear>(
                              store, fmt::format("blocks.{}.tap", i),
                              config.layer_width, config.hidden, kNoBias));
  }
  if (options.has_head(config.layers())) {
    store.BeginUnit();
    head_ = std::make_shared<FinalLayer>(store, grid, config.hidden,
                                         config.patch_channels());
  }
}

std::set<int32_t> HidreamPart::ReadLayers(const HidreamConfig& config,
                                          const ChunkRequest& options) {
  std::set<int32_t> layers;
  if (options.has_embedding()) layers.insert(config.block_text_layers.back());
  const int64_t end = std::min(options.blocks.end, config.layers() - 1);
  for (int64_t i = options.blocks.first; i < end; ++i) {
    layers.insert(config.block_text_layers[i]);
  }
  return layers;
}

AxisStates HidreamPart::TapStates() const {
  AxisStates states = layout_.SharedStates();
  // Under sequence parallelism each rank's modulations have a part of their
  // gradient only, and so has what they are applied to.
  if (!options_.sequence_parallel) {
    states[Axis::kTensor] = AxisState::Invariant();
  }
  return states;
}

ShardedVariable HidreamPart::Project(ForwardContext& context,
                                     const InputWatch& watch,
                                     const Tensor& states,
                                     const ReplicatedLinear& projection,
                                     int64_t block) const {
  return projection.Forward(
      context, watch(context, TextLayerField(config_.block_text_layers[block]),
                     BatchConstant(states)));
}

ShardedVariable HidreamPart::AsTap(ForwardContext& context,
                                   const ShardedVariable& tokens) const {
  const AxisStates states = TapStates();
  return Transition(
      context,
      Transition(context, tokens, Axis::kTensor, states[Axis::kTensor]),
      Axis::kContext, states[Axis::kContext]);
}

StreamState HidreamPart::Embed(ForwardContext& context,
                               const HidreamInputs& inputs) const {
  CHECK(has_embedding());
  StreamState state;
  state.x = embedding_->patches.Forward(
      context,
      inputs.watch(context, kPixelsField,
                   {Variable(LocalTokens(inputs.patches, layout_.tokens())),
                    layout_.TokenStates()},
                   layout_.tokens().local.begin));
  const ShardedVariable c =
      Add(context,
          embedding_->time.Forward(
              context, BatchConstant(Sinusoid(inputs.sigmas, dtype_))),
          embedding_->pooled.Forward(
              context, inputs.watch(context, kPooledTextField,
                                    BatchConstant(inputs.pooled))));
  state.silu_c = layout_.Conditioning(context, c);
  const ShardedVariable last =
      Project(context, inputs.watch, inputs.last, embedding_->last_tap,
              config_.layers() - 1);
  state.tap = AsTap(context, last);
  state.text = layout_.SpreadText(
      context,
      ConcatTokens(context,
                   embedding_->text.Forward(
                       context, inputs.watch(context, kTextField,
                                             BatchConstant(inputs.text))),
                   last));
  return state;
}

std::vector<BoundarySpec> HidreamPart::Boundary(int block, int64_t b) const {
  const bool ends = options_.blocks.first + block == config_.layers();
  std::vector<BoundarySpec> specs =
      layout_.Boundary(b, config_.hidden, dtype_, /*with_text=*/!ends);
  if (!ends) {
    specs.push_back(
        {{b, config_.layer_tokens, config_.hidden}, dtype_, TapStates()});
  }
  return specs;
}

HidreamConstants HidreamPart::ConstantsOf(const Batch& microbatch,
                                          const Objective& objective,
                                          const InputWatch& watch) const {
  HidreamConstants constants =
      Constants(objective.Condition(microbatch, kTextCountField, /*none=*/0),
                microbatch, objective.global_batch());
  constants.tokens.routed_image.kinds = objective.RouteKinds(microbatch);
  constants.tokens.routed_together.kinds = constants.tokens.routed_image.kinds;
  constants.watch = watch;
  return constants;
}

HidreamConstants HidreamPart::Constants(const Tensor& text_counts,
                                        const Batch& batch,
                                        int64_t global_batch) const {
  HidreamConstants constants;
  HidreamTokens& tokens = constants.tokens;
  tokens.rope = rope_;
  tokens.image = layout_.tokens();
  tokens.text = layout_.text_tokens();
  tokens.context_parallel = layout_.context_parallel();
  tokens.routed_image = {.positions = tokens.image.LocalPositions(),
                         .of_sample = tokens.image.tokens,
                         .global_batch = global_batch};
  tokens.routed_together =
      RoutedTogether(grid_, tokens.image, tokens.text, global_batch);
  for (MoeTokens* routed : {&tokens.routed_image, &tokens.routed_together}) {
    routed->step = batch.step;
    routed->samples = batch.samples;
  }
  constants.text_counts = text_counts;
  for (const int32_t layer : ReadLayers(config_, options_)) {
    constants.layers[layer] =
        WithText(batch[TextLayerField(layer)], text_counts);
  }
  return constants;
}

Tensor HidreamPart::WithText(const Tensor& states,
                             const Tensor& text_counts) const {
  return WithoutEmptyTexts(
      states.dtype() == dtype_ ? states : Cast(states, dtype_), text_counts,
      config_.text_tokens);
}

HidreamInputs HidreamPart::InputsOf(const Batch& microbatch,
                                    const ModelInputs& prepared,
                                    const Objective& /*objective*/,
                                    const HidreamConstants& constants) const {
  return {
      .patches = TokensOf(prepared.x),
      .sigmas = prepared.times,
      .text = WithText(microbatch[kTextField], constants.text_counts),
      .last = constants.layers.at(config_.block_text_layers.back()),
      .pooled = WithText(microbatch[kPooledTextField], constants.text_counts),
      .watch = {}};
}

void HidreamPart::RunBlock(ForwardContext& context, int block,
                           const HidreamConstants& constants,
                           StreamState& state) const {
  const int64_t index = options_.blocks.first + block;
  if (taps_[block] == nullptr) {
    blocks_[block]->Forward(context, constants.tokens, state.tap, state);
    state.tap = ShardedVariable();
    return;
  }
  blocks_[block]->Forward(
      context, constants.tokens,
      AsTap(context,
            Project(context, constants.watch,
                    constants.layers.at(config_.block_text_layers[index]),
                    *taps_[block], index)),
      state);
}

ShardedVariable HidreamPart::Head(ForwardContext& context,
                                  const StreamState& state) const {
  CHECK(has_head());
  const ShardedVariable y = head_->Forward(context, state, layout_.tokens());
  return {Scale(context.tape, y.variable, -1), y.states};
}

ShardedVariable HidreamPart::Predict(ForwardContext& context,
                                     const HidreamInputs& inputs,
                                     const HidreamConstants& constants) const {
  CHECK(has_embedding() && has_head());
  StreamState state = Embed(context, inputs);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

}  // namespace trireme
