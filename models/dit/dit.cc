#include "models/dit/dit.h"

#include <utility>

#include "fmt/format.h"
#include "models/transformer/position_table.h"
#include "parallel/grid/transitions.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kMaxPeriod = 10000.0;

// Coordinates of the range's tokens: (row, column) of pictures, (z, y, x) of a
// lattice. Those of padding lie beyond it; nobody sees them.
std::vector<double> TokenPositions(const DitConfig& config, TokenRange range) {
  std::vector<double> positions;
  const int64_t side = config.of_sets() ? config.set.lattice : config.columns();
  for (int64_t token = range.begin; token < range.begin + range.count;
       ++token) {
    if (config.of_sets()) {
      positions.push_back(static_cast<double>(token / side / side));
      positions.push_back(static_cast<double>(token / side % side));
    } else {
      positions.push_back(static_cast<double>(token / side));
    }
    positions.push_back(static_cast<double>(token % side));
  }
  return positions;
}

// Of the fixed table: rows and columns in units of which a side of
// position_base has as many, where there is one.
std::vector<double> TablePositions(const DitConfig& config, TokenRange range) {
  std::vector<double> positions = TokenPositions(config, range);
  if (config.position_base == 0) return positions;
  const auto base = static_cast<double>(config.position_base);
  const double units[] = {static_cast<double>(config.rows()) / base,
                          static_cast<double>(config.columns()) / base};
  for (size_t i = 0; i < positions.size(); ++i) positions[i] /= units[i % 2];
  return positions;
}

}  // namespace

struct DitPart::Embedding {
  ReplicatedLinear tokens;
  // Of all blocks; of the first and the head where each has its own.
  DitConditioner conditioner;
  std::unique_ptr<ReplicatedLinear> text;
  Tensor position_table;
};

DitPart::DitPart(ParameterStore& store, const ProcessGrid& grid,
                 const DitConfig& config, const ChunkRequest& options)
    : config_(config),
      options_(options),
      device_(store.device()),
      dtype_(store.dtype()),
      layout_(grid, config.tokens(), config.text_tokens,
              options.sequence_parallel, config.joint_text()) {
  const int64_t h = config.hidden;
  Device& device = store.device();
  const DType compute =
      store.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  if (config.positions == Dit::ROPE) {
    const std::vector<int64_t> axis_dims(config.axes(),
                                         config.head_dim() / config.axes());
    rope_ = MakeRopeTable(device, axis_dims,
                          TokenPositions(config, layout_.tokens().attention),
                          kMaxPeriod, compute);
  }
  if (options.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "patch_embedding", config.token_channels(), h),
        DitConditioner(store, "", config)});
    if (config.text_tokens > 0) {
      embedding_->text = std::make_unique<ReplicatedLinear>(
          store, "text_embedding", config.text_width, h);
    }
    if (config.positions == Dit::SINCOS) {
      embedding_->position_table = SinCosTable(
          device, config.hidden, config.axes(),
          TablePositions(config, layout_.tokens().local), store.dtype());
    }
  }
  for (int64_t i = options.blocks.first; i < options.blocks.end; ++i) {
    store.BeginUnit();
    conditioners_.push_back(
        config.conditions_per_block && i > 0
            ? std::make_unique<DitConditioner>(
                  store, fmt::format("blocks.{}.", i), config)
            : nullptr);
    blocks_.push_back(std::make_unique<DitBlock>(
        store, grid, i, config,
        options.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (options.has_head(config.layers)) {
    store.BeginUnit();
    head_ = std::make_shared<FinalLayer>(store, grid, h,
                                         config.predicted_channels());
  }
}

std::string_view DitPart::sample_field() const {
  return config_.of_sets() ? kTokenSetField : kPixelsField;
}

Tensor DitPart::TokensOf(const Tensor& x) const {
  return config_.of_sets() ? x : Patchify(x, config_.patch);
}

StreamState DitPart::Embed(ForwardContext& context,
                           const DitInputs& inputs) const {
  CHECK(has_embedding());
  StreamState state;
  state.x = embedding_->tokens.Forward(
      context,
      inputs.watch(context, sample_field(),
                   {Variable(LocalTokens(inputs.tokens, layout_.tokens())),
                    layout_.TokenStates()},
                   layout_.tokens().local.begin));
  if (embedding_->position_table.defined()) {
    state.x = AddConstant(context, state.x, embedding_->position_table);
  }
  state.silu_c = layout_.Conditioning(
      context, embedding_->conditioner.Forward(
                   context, ConditionsOf(inputs.sigmas, inputs.labels)));
  if (embedding_->text != nullptr) {
    state.text = layout_.EmbedText(
        context, *embedding_->text,
        inputs.watch(context, kTextField, layout_.TextInput(inputs.text),
                     layout_.text_tokens().local.begin));
  }
  return state;
}

std::vector<BoundarySpec> DitPart::Boundary(int block, int64_t b) const {
  // The model's last block gives no text in joint form.
  const bool text_ends =
      config_.joint_text() && options_.blocks.first + block == config_.layers;
  return layout_.Boundary(b, config_.hidden, dtype_,
                          config_.text_tokens > 0 && !text_ends);
}

DitConstants DitPart::ConstantsOf(const Batch& microbatch,
                                  const Objective& objective,
                                  const InputWatch& /*watch*/) const {
  Tensor text_counts;
  if (config_.text_tokens > 0) {
    text_counts = objective.Condition(microbatch, kTextCountField, /*none=*/0);
  }
  DitConstants constants =
      Constants(microbatch.size(), text_counts, objective.global_batch());
  constants.routed.step = microbatch.step;
  constants.routed.samples = microbatch.samples;
  constants.routed.kinds = objective.RouteKinds(microbatch);
  if (config_.conditions_per_block) {
    constants.conditions =
        ConditionsOf(objective.Times(microbatch, device_, dtype_),
                     LabelsOf(microbatch, objective));
  }
  return constants;
}

DitConditions DitPart::ConditionsOf(const Tensor& times,
                                    const Tensor& labels) const {
  return {.sinusoid = DitSinusoid(config_, times, dtype_), .labels = labels};
}

Tensor DitPart::LabelsOf(const Batch& microbatch,
                         const Objective& objective) const {
  if (config_.classes == 0) return Tensor();
  return objective.Condition(microbatch, kLabelField,
                             static_cast<int32_t>(config_.classes));
}

DitInputs DitPart::InputsOf(const Batch& microbatch,
                            const ModelInputs& prepared,
                            const Objective& objective,
                            const DitConstants& /*constants*/) const {
  DitInputs inputs;
  inputs.tokens = TokensOf(prepared.x);
  inputs.sigmas = prepared.times;
  inputs.labels = LabelsOf(microbatch, objective);
  if (config_.text_tokens > 0) {
    const Tensor& text = microbatch[kTextField];
    inputs.text = text.dtype() == dtype_ ? text : Cast(text, dtype_);
  }
  return inputs;
}

DitConstants DitPart::Constants(int64_t b, const Tensor& text_counts,
                                int64_t global_batch) const {
  DitConstants constants;
  constants.rope = rope_;
  const TokenLayout& tokens = layout_.tokens();
  constants.tokens = tokens;
  constants.context_parallel = layout_.context_parallel();
  constants.routed = {.positions = tokens.LocalPositions(),
                      .of_sample = config_.tokens(),
                      .global_batch = global_batch};
  if (tokens.has_padding()) {
    constants.image_counts =
        Full(device_, {b}, DType::kInt32, static_cast<double>(tokens.tokens));
  }
  constants.text_counts = text_counts;
  if (config_.joint_text()) {
    constants.joint_counts = AddOffset(
        text_counts, static_cast<int32_t>(config_.tokens()), "key counts");
  }
  return constants;
}

void DitPart::RunBlock(ForwardContext& context, int block,
                       const DitConstants& constants,
                       StreamState& state) const {
  if (conditioners_[block] == nullptr) {
    blocks_[block]->Forward(context, constants, state);
    return;
  }
  // What the head reads passes by.
  const ShardedVariable of_head = state.silu_c;
  state.silu_c = layout_.Conditioning(
      context, conditioners_[block]->Forward(context, constants.conditions));
  blocks_[block]->Forward(context, constants, state);
  state.silu_c = of_head;
}

ShardedVariable DitPart::Predict(ForwardContext& context,
                                 const DitInputs& inputs,
                                 const Tensor& text_counts) const {
  CHECK(has_embedding() && has_head());
  StreamState state = Embed(context, inputs);
  DitConstants constants =
      Constants(inputs.tokens.dim(0), text_counts, /*global_batch=*/0);
  constants.conditions = ConditionsOf(inputs.sigmas, inputs.labels);
  for (int i = 0; i < num_blocks(); ++i) {
    RunBlock(context, i, constants, state);
  }
  return Head(context, state);
}

ShardedVariable DitPart::Head(ForwardContext& context,
                              const StreamState& state) const {
  CHECK(has_head());
  return head_->Forward(context, state, layout_.tokens());
}

}  // namespace trireme
