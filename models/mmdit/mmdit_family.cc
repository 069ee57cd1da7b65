#include "models/mmdit/mmdit_family.h"

#include <string>
#include <tuple>

#include "fmt/format.h"
#include "models/mmdit/mmdit.h"
#include "models/mmdit/mmdit_names.h"
#include "models/transformer/block_runs.h"
#include "models/transformer/picture_chunk.h"
#include "models/transformer/token_layout.h"
#include "runtime/core/status.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

class MmditFamily final : public ModelFamily {
 public:
  explicit MmditFamily(const MmditConfig& config) : config_(config) {}

  std::string Describe() const override {
    std::string text = fmt::format(
        "MMDiT: {} dual and {} single blocks, width {}, {} heads, {} + {} "
        "tokens",
        config_.dual_layers, config_.single_layers, config_.hidden,
        config_.heads, config_.tokens(), config_.text_tokens);
    if (config_.views > 1) {
      text +=
          fmt::format(", {} views{}", config_.views,
                      config_.view_streams ? " in streams of their own" : "");
    }
    if (config_.experts.has_value()) {
      text +=
          fmt::format(", {} experts, {} of them for each token",
                      config_.experts->moe.experts, config_.experts->moe.top_k);
    }
    return text;
  }

  const MoeConfig* experts() const override {
    return config_.experts.has_value() ? &config_.experts->moe : nullptr;
  }
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
    if (config_.experts.has_value()) {
      shape.experts = config_.experts->moe.experts;
      shape.expert_hidden = config_.experts->moe.expert_hidden;
      shape.shared_hidden = config_.experts->moe.shared_hidden;
    }
    // Dual ones with and without the picture's own attention and experts,
    // single ones, and the last one, which gives no text.
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      return std::tuple(i < config_.dual_layers,
                        i < config_.image_attention_layers,
                        config_.has_experts(i), i + 1 == config_.layers());
    });
    return shape;
  }

  FieldSpec samples() const override {
    if (config_.of_sets()) {
      return {.name = kTokenSetField,
              .shape = {config_.set_tokens, config_.channels},
              .job_field = "data"};
    }
    return {.name = kPixelsField,
            .shape = {config_.channels, config_.views * config_.height,
                      config_.width},
            .job_field = "data.resolution"};
  }

  // The embedding reads samples and text, the head samples, all blocks the
  // number of text tokens.
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
                      .job_field = "model.mmdit.text.tokens"});
    if (embedding) {
      fields.push_back({.name = kTextField,
                        .shape = {config_.text_tokens, config_.text_width},
                        .from_caption = config_.text_bytes,
                        .job_field = "model.mmdit.text.width"});
      fields.push_back({.name = kPooledTextField,
                        .shape = {config_.pooled_width},
                        .from_caption = config_.text_bytes,
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
    return std::make_unique<PictureChunk<MmditPart>>(
        std::make_shared<MmditPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return MmditNames(config_);
  }

  ClassCall Call() const override {
    ClassCall call = {.guidance = config_.guidance.has_value()};
    if (config_.positions == Mmdit::ROPE) {
      call.timestep_scale = 1;
      call.packed_patch = config_.patch;
    }
    return call;
  }

  absl::StatusOr<std::shared_ptr<const ModelFamily>> ForInputs(
      const InputSizes& sizes) const override {
    if (config_.of_sets()) return ModelFamily::ForInputs(sizes);
    if (config_.views > 1) {
      return InvalidArgument(
          "hidden_states: found pictures of {} x {}, expected a model of one "
          "view a sample",
          sizes.height, sizes.width);
    }
    MmditConfig config = config_;
    config.height = sizes.height;
    config.width = sizes.width;
    config.text_tokens = sizes.text_tokens;
    RETURN_IF_ERROR(CheckMmditSizes(config));
    return MakeMmditFamily(config);
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    return MmditSamples(config_, WithoutPadding(prediction, config_.tokens()));
  }

 private:
  MmditConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeMmditFamily(const MmditConfig& config) {
  return std::make_shared<MmditFamily>(config);
}

}  // namespace trireme
