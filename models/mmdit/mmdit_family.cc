#include "models/mmdit/mmdit_family.h"

#include <algorithm>

#include "fmt/format.h"
#include "models/mmdit/mmdit.h"
#include "models/mmdit/mmdit_chunk.h"
#include "models/mmdit/mmdit_names.h"
#include "models/transformer/token_layout.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

int64_t MlpParameters(int64_t in, int64_t hidden) {
  return (in + 1) * hidden + (hidden + 1) * hidden;
}

class MmditFamily final : public ModelFamily {
 public:
  explicit MmditFamily(const MmditConfig& config) : config_(config) {}

  std::string Describe() const override {
    return fmt::format(
        "MMDiT: {} dual and {} single blocks, width {}, {} heads, {} + {} "
        "tokens",
        config_.dual_layers, config_.single_layers, config_.hidden,
        config_.heads, config_.tokens(), config_.text_tokens);
  }

  // As if all blocks were dual ones: a single block has as many products per
  // token and half of the parameters.
  ModelShape Shape() const override {
    const int64_t h = config_.hidden;
    ModelShape shape;
    shape.name = "MMDiT";
    shape.layers = config_.layers();
    shape.hidden = h;
    shape.mlp_hidden = config_.mlp_hidden;
    shape.heads = config_.heads;
    shape.tokens = config_.tokens();
    shape.text_tokens = config_.text_tokens;
    shape.text = ModelShape::Text::kJoint;
    shape.modulation_parameters = 6 * h * (h + 1);
    shape.qk_norm = config_.qk_norm;
    const int64_t scalars = config_.guidance.has_value() ? 2 : 1;
    shape.embedding_parameters =
        (config_.patch_channels() + 1) * h + (config_.text_width + 1) * h +
        scalars * MlpParameters(kMmditTimeChannels, h) +
        MlpParameters(config_.pooled_width, h);
    shape.embedding_flops =
        2.0 *
        static_cast<double>(config_.tokens() * config_.patch_channels() * h +
                            config_.text_tokens * config_.text_width * h +
                            scalars * (kMmditTimeChannels + h) * h +
                            (config_.pooled_width + h) * h);
    shape.head_parameters =
        2 * h * (h + 1) + (h + 1) * config_.patch_channels();
    shape.head_flops = 2.0 * static_cast<double>(config_.tokens() * h *
                                                 config_.patch_channels());
    return shape;
  }

  bool blocks_alike() const override { return false; }

  // Both kinds remain, in the same proportion as far as `blocks` allows it.
  std::shared_ptr<const ModelFamily> WithBlocks(int64_t blocks) const override {
    MmditConfig config = config_;
    config.dual_layers = std::clamp<int64_t>(
        blocks * config_.dual_layers / config_.layers(), 1, blocks);
    config.single_layers = blocks - config.dual_layers;
    config.image_attention_layers =
        std::min(config.image_attention_layers, config.dual_layers);
    return MakeMmditFamily(config);
  }

  FieldSpec samples() const override {
    return {.name = kPixelsField,
            .shape = {config_.channels, config_.height, config_.width},
            .job_field = "data.resolution"};
  }

  // The embedding reads pixels and text, the head pixels, all blocks the number
  // of text tokens.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    const bool embedding = request.has_embedding();
    std::vector<FieldSpec> fields;
    if (embedding || request.has_head(config_.layers())) {
      fields.push_back(samples());
    }
    fields.push_back({.name = kTextCountField,
                      .dtype = DType::kInt32,
                      .typical = static_cast<double>(config_.text_tokens),
                      .job_field = "model.mmdit.text.tokens"});
    if (embedding) {
      fields.push_back({.name = kTextField,
                        .shape = {config_.text_tokens, config_.text_width},
                        .job_field = "model.mmdit.text.width"});
      fields.push_back({.name = kPooledTextField,
                        .shape = {config_.pooled_width},
                        .job_field = "model.mmdit.text.pooled_width"});
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
    return std::make_unique<MmditChunk>(
        std::make_shared<MmditPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return MmditNames(config_);
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    return Unpatchify(WithoutPadding(prediction, config_.tokens()),
                      config_.patch, config_.channels, config_.height,
                      config_.width);
  }

 private:
  MmditConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeMmditFamily(const MmditConfig& config) {
  return std::make_shared<MmditFamily>(config);
}

}  // namespace trireme
