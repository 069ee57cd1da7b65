#include "models/mmdit/mmdit.h"

#include <numeric>
#include <utility>
#include <vector>

#include "models/transformer/embeddings.h"
#include "models/transformer/position_table.h"
#include "parallel/grid/transitions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

PatchGrid GridOf(const MmditConfig& config) {
  return {config.columns(), config.views};
}

// A fixed table for the range's tokens, of (row, column) in the middle of a
// square, which pictures of every size share, or (view, row, column).
Tensor SinCosOfPatches(Device& device, const MmditConfig& config,
                       const TokenRange& range, DType dtype) {
  const int64_t top = (config.position_table - config.rows()) / 2;
  const int64_t left = (config.position_table - config.columns()) / 2;
  std::vector<double> coordinates;
  for (int64_t i = 0; i < range.count; ++i) {
    const auto [view, row, column] = GridOf(config).Place(range.begin + i);
    if (config.views > 1) coordinates.push_back(static_cast<double>(view));
    coordinates.push_back(config.position_coordinate(top + row));
    coordinates.push_back(config.position_coordinate(left + column));
  }
  return SinCosTable(device, config.hidden, config.views > 1 ? 3 : 2,
                     coordinates, dtype);
}

// Of tokens' numbers in their set.
Tensor SinCosOfNumbers(Device& device, int64_t width, const TokenRange& range,
                       DType dtype) {
  std::vector<double> numbers(range.count);
  std::iota(numbers.begin(), numbers.end(), static_cast<double>(range.begin));
  return SinCosTable(device, width, /*axes=*/1, numbers, dtype);
}

}  // namespace

Tensor MmditTokens(const MmditConfig& config, const Tensor& samples) {
  if (config.of_sets()) return samples;
  const Tensor patches = Patchify(samples, config.patch);
  if (config.views == 1) return patches;
  return GatherParts(patches, config.rows() * config.columns());
}

Tensor MmditSamples(const MmditConfig& config, const Tensor& tokens) {
  if (config.of_sets()) return tokens;
  return Unpatchify(
      config.views == 1 ? tokens : GatherParts(tokens, config.views),
      config.patch, config.channels, config.views * config.height,
      config.width);
}

struct MmditPart::Embedding {
  Embedding(ParameterStore& store, const MmditConfig& config)
      : patches(store, "patch_embedding", config.patch_channels(),
                config.hidden),
        time(store, "time_embedding", kScalarChannels, config.hidden),
        pooled(store, "pooled_embedding", config.pooled_width, config.hidden),
        text(store, "text_embedding", config.text_width, config.hidden) {
    if (config.guidance.has_value()) {
      guidance = std::make_unique<ConditionMlp>(store, "guidance_embedding",
                                                kScalarChannels, config.hidden);
    }
  }

  ReplicatedLinear patches;
  ConditionMlp time;
  ConditionMlp pooled;
  ReplicatedLinear text;
  std::unique_ptr<ConditionMlp> guidance;
  Tensor position_table;
};

MmditPart::MmditPart(ParameterStore& store, const ProcessGrid& grid,
                     const MmditConfig& config, const ChunkRequest& options)
    : config_(config),
      options_(options),
      dtype_(store.dtype()),
      layout_(grid, config.tokens(), config.text_tokens,
              options.sequence_parallel, /*text_stream=*/true,
              config.view_streams ? config.views : 1) {
  Device& device = store.device();
  if (config.positions == Mmdit::ROPE) {
    rope_ = PictureRope(device, config.rope_axes, GridOf(config),
                        layout_.tokens().attention, dtype_);
  }
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(store, config);
    if (config.positions == Mmdit::SINCOS) {
      const TokenRange& local = layout_.tokens().local;
      embedding_->position_table =
          config.of_sets()
              ? SinCosOfNumbers(device, config.hidden, local, dtype_)
              : SinCosOfPatches(device, config, local, dtype_);
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
    head_ = std::make_shared<FinalLayer>(store, grid, config.hidden,
                                         config.patch_channels());
  }
}

StreamState MmditPart::Embed(ForwardContext& context,
                             const MmditInputs& inputs) const {
  CHECK(has_embedding());
  StreamState state;
  state.x = embedding_->patches.Forward(
      context,
      inputs.watch(context, sample_field(),
                   {Variable(LocalTokens(inputs.patches, layout_.tokens())),
                    layout_.TokenStates()},
                   layout_.tokens().local.begin));
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
  state.silu_c = layout_.Conditioning(context, c);
  state.text = layout_.EmbedText(
      context, embedding_->text,
      inputs.watch(context, kTextField, layout_.TextInput(inputs.text),
                   layout_.text_tokens().local.begin));
  return state;
}

std::vector<BoundarySpec> MmditPart::Boundary(int block, int64_t b) const {
  const bool ends = options_.blocks.first + block == config_.layers();
  return layout_.Boundary(b, config_.hidden, dtype_, /*with_text=*/!ends);
}

MmditConstants MmditPart::ConstantsOf(const Batch& microbatch,
                                      const Objective& objective,
                                      const InputWatch& /*watch*/) const {
  MmditConstants constants =
      Constants(objective.Condition(microbatch, kTextCountField, /*none=*/0),
                objective.global_batch());
  constants.routed.step = microbatch.step;
  constants.routed.samples = microbatch.samples;
  constants.routed.kinds = objective.RouteKinds(microbatch);
  return constants;
}

MmditInputs MmditPart::InputsOf(const Batch& microbatch,
                                const ModelInputs& prepared,
                                const Objective& /*objective*/,
                                const MmditConstants& constants) const {
  const auto typed = [this](const Tensor& x) {
    return x.dtype() == dtype_ ? x : Cast(x, dtype_);
  };
  MmditInputs inputs;
  inputs.patches = TokensOf(prepared.x);
  inputs.sigmas = prepared.times;
  inputs.text = typed(microbatch[kTextField]);
  inputs.pooled = typed(microbatch[kPooledTextField]);
  inputs.text_counts = constants.text_counts;
  if (config_.guidance.has_value()) {
    inputs.guidance =
        microbatch.Has(kGuidanceField)
            ? microbatch[kGuidanceField]
            : Full(prepared.times.device(), prepared.times.shape(),
                   prepared.times.dtype(), *config_.guidance);
  }
  return inputs;
}

MmditConstants MmditPart::Constants(const Tensor& text_counts,
                                    int64_t global_batch) const {
  return {
      .rope = rope_,
      .tokens = layout_.tokens(),
      .context_parallel = layout_.context_parallel(),
      .routed = {.positions = layout_.tokens().LocalPositions(),
                 .of_sample = config_.tokens(),
                 .global_batch = global_batch},
      .text_counts = text_counts,
      .joint_counts = AddOffset(
          text_counts, static_cast<int32_t>(config_.tokens()), "key counts")};
}

void MmditPart::RunBlock(ForwardContext& context, int block,
                         const MmditConstants& constants,
                         StreamState& state) const {
  blocks_[block]->Forward(context, constants, state);
}

ShardedVariable MmditPart::Predict(ForwardContext& context,
                                   const MmditInputs& inputs) const {
  CHECK(has_embedding() && has_head());
  StreamState state = Embed(context, inputs);
  const MmditConstants constants =
      Constants(inputs.text_counts, /*global_batch=*/0);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

ShardedVariable MmditPart::Head(ForwardContext& context,
                                const StreamState& state) const {
  CHECK(has_head());
  return head_->Forward(context, state, layout_.tokens());
}

}  // namespace trireme
