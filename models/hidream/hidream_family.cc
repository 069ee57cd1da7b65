#include "models/hidream/hidream_family.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/hidream/hidream.h"
#include "models/hidream/hidream_names.h"
#include "models/transformer/block_runs.h"
#include "models/transformer/picture_chunk.h"
#include "models/transformer/token_layout.h"
#include "runtime/core/status.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

class HidreamFamily final : public ModelFamily {
 public:
  explicit HidreamFamily(const HidreamConfig& config) : config_(config) {}

  std::string Describe() const override {
    return fmt::format(
        "HiDream: {} dual and {} single blocks, width {}, {} heads, {} + {} "
        "tokens, {} experts, {} of them for each token",
        config_.dual_layers, config_.single_layers, config_.hidden,
        config_.heads, config_.tokens(),
        config_.carried_tokens() + config_.layer_tokens, config_.moe.experts,
        config_.moe.top_k);
  }

  const MoeConfig* experts() const override { return &config_.moe; }
  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "HiDream";
    shape.layers = config_.layers();
    shape.hidden = config_.hidden;
    shape.mlp_hidden = config_.mlp_hidden;
    shape.heads = config_.heads;
    shape.experts = config_.moe.experts;
    shape.expert_hidden = config_.moe.expert_hidden;
    shape.shared_hidden = config_.moe.shared_hidden;
    shape.tokens = config_.tokens();
    shape.text_tokens = config_.carried_tokens();
    shape.text = ModelShape::Text::kJoint;
    // Dual ones, single ones, and the last one, which gives no text.
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      return std::pair(i < config_.dual_layers, i + 1 == config_.layers());
    });
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kPixelsField,
            .shape = {config_.channels, config_.height, config_.width},
            .job_field = "data.resolution"};
  }

  // The embedding reads pixels and text, the head pixels, blocks their layers
  // of the language model and whether there is text.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    const bool embedding = request.has_embedding();
    std::vector<FieldSpec> fields;
    if (embedding || request.has_head(config_.layers())) {
      fields.push_back(samples());
    }
    fields.push_back({.name = kTextCountField,
                      .dtype = DType::kInt32,
                      .typical = static_cast<double>(config_.text_tokens),
                      .from_caption = config_.text_bytes,
                      .job_field = "model.hidream.text.tokens"});
    for (const int32_t layer : HidreamPart::ReadLayers(config_, request)) {
      fields.push_back({.name = TextLayerField(layer),
                        .shape = {config_.layer_tokens, config_.layer_width},
                        .from_caption = config_.text_bytes,
                        .layer = layer,
                        .num_layers = config_.text_layers,
                        .job_field = "model.hidream.text.layer_width"});
    }
    if (embedding) {
      fields.push_back({.name = kTextField,
                        .shape = {config_.text_tokens, config_.text_width},
                        .from_caption = config_.text_bytes,
                        .job_field = "model.hidream.text.width"});
      fields.push_back({.name = kPooledTextField,
                        .shape = {config_.pooled_width},
                        .from_caption = config_.text_bytes,
                        .job_field = "model.hidream.text.pooled_width"});
    }
    return fields;
  }

  int64_t num_classes() const override { return 0; }

  std::optional<int32_t> NoCondition(std::string_view field) const override {
    if (field == kTextCountField) return 0;
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<PictureChunk<HidreamPart>>(
        std::make_shared<HidreamPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return HidreamNames(config_);
  }

  ClassCall Call() const override {
    return {.timestep = "timesteps",
            .text = "encoder_hidden_states_t5",
            .pooled = "pooled_embeds",
            .text_layers = "encoder_hidden_states_llama3",
            .predicts_data_minus_noise = true};
  }

  absl::StatusOr<std::shared_ptr<const ModelFamily>> ForInputs(
      const InputSizes& sizes) const override {
    HidreamConfig config = config_;
    config.height = sizes.height;
    config.width = sizes.width;
    config.text_tokens = sizes.text_tokens;
    config.layer_tokens = sizes.text_layer_tokens;
    RETURN_IF_ERROR(CheckHidreamSizes(config));
    return MakeHidreamFamily(config);
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    return Unpatchify(WithoutPadding(prediction, config_.tokens()),
                      config_.patch, config_.channels, config_.height,
                      config_.width);
  }

 private:
  HidreamConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeHidreamFamily(
    const HidreamConfig& config) {
  return std::make_shared<HidreamFamily>(config);
}

}  // namespace trireme
