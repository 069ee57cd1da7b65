#include "models/dit/dit_family.h"

#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/dit/dit.h"
#include "models/dit/dit_names.h"
#include "models/transformer/block_runs.h"
#include "models/transformer/picture_chunk.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

class DitFamily final : public ModelFamily {
 public:
  explicit DitFamily(const DitConfig& config) : config_(config) {}

  std::string Describe() const override {
    std::string text = fmt::format(
        "DiT: {} layers, width {}, {} heads, {} tokens", config_.layers,
        config_.hidden, config_.heads, config_.tokens());
    if (config_.moe.has_value()) {
      text += fmt::format(", {} experts, {} of them for each token",
                          config_.moe->experts, config_.moe->top_k);
    }
    return text;
  }

  const MoeConfig* experts() const override {
    return config_.moe.has_value() ? &*config_.moe : nullptr;
  }
  ModelShape Shape() const override {
    const int64_t h = config_.hidden;
    ModelShape shape;
    shape.name = "DiT";
    shape.layers = config_.layers;
    shape.hidden = h;
    shape.mlp_hidden = config_.mlp_hidden;
    shape.heads = config_.heads;
    if (config_.moe.has_value()) {
      shape.experts = config_.moe->experts;
      shape.expert_hidden = config_.moe->expert_hidden;
      shape.shared_hidden = config_.moe->shared_hidden;
    }
    shape.tokens = config_.tokens();
    shape.text_tokens = config_.text_tokens;
    shape.text = config_.cross_text()   ? ModelShape::Text::kCross
                 : config_.joint_text() ? ModelShape::Text::kJoint
                                        : ModelShape::Text::kNone;
    // With and without experts; the last block reads joint text and does not
    // change it.
    // Of conditions per block the first has its own with the embedding.
    shape.block_runs = RunsOf(config_.layers, [this](int64_t i) {
      return std::tuple(config_.has_experts(i),
                        config_.joint_text() && i + 1 == config_.layers,
                        config_.conditions_per_block && i == 0);
    });
    return shape;
  }

  FieldSpec samples() const override {
    if (config_.of_sets()) {
      return {.name = kTokenSetField,
              .shape = {config_.set.tokens, config_.set.channels},
              .job_field = "data.shapes"};
    }
    const ImageSpec& image = config_.image;
    return {.name = kPixelsField,
            .shape = {image.channels, image.height, image.width},
            .job_field = "data.resolution"};
  }

  FieldSpec predictions() const override {
    FieldSpec spec = samples();
    if (config_.learned_variance) {
      const ImageSpec& image = config_.image;
      spec.shape = {2 * image.channels, image.height, image.width};
    }
    return spec;
  }

  // The embedding reads samples, labels and text, the head samples, all blocks
  // the number of text tokens, and labels where they embed them.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    const bool embedding = request.has_embedding();
    std::vector<FieldSpec> fields;
    if (embedding || request.has_head(config_.layers)) {
      fields.push_back(samples());
    }
    if ((embedding || config_.conditions_per_block) && config_.classes > 0) {
      fields.push_back({.name = kLabelField, .dtype = DType::kInt32});
    }
    if (config_.text_tokens == 0) return fields;
    fields.push_back({.name = kTextCountField,
                      .dtype = DType::kInt32,
                      .typical = static_cast<double>(config_.text_tokens),
                      .from_caption = config_.text_bytes,
                      .job_field = "model.dit.text.tokens"});
    if (embedding) {
      fields.push_back({.name = kTextField,
                        .shape = {config_.text_tokens, config_.text_width},
                        .from_caption = config_.text_bytes,
                        .job_field = "model.dit.text.width"});
    }
    return fields;
  }

  int64_t num_classes() const override { return config_.classes; }

  std::optional<int32_t> NoCondition(std::string_view field) const override {
    // The table's last row is that of no class.
    if (field == kLabelField) return static_cast<int32_t>(config_.classes);
    if (field == kTextCountField) return 0;
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<PictureChunk<DitPart>>(
        std::make_shared<DitPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override { return DitNames(config_); }

  absl::StatusOr<std::shared_ptr<const ModelFamily>> ForInputs(
      const InputSizes& sizes) const override {
    if (config_.of_sets()) return ModelFamily::ForInputs(sizes);
    const int64_t patch = config_.patch;
    if (sizes.height < patch || sizes.width < patch ||
        sizes.height % patch != 0 || sizes.width % patch != 0) {
      return InvalidArgument(
          "hidden_states: found pictures of {} x {}, expected multiples of the "
          "patches' {}",
          sizes.height, sizes.width, patch);
    }
    if ((sizes.text_tokens > 0) != (config_.text_tokens > 0)) {
      return InvalidArgument(
          "encoder_hidden_states: found {} tokens, expected {}",
          sizes.text_tokens, config_.text_tokens > 0 ? "some" : "none");
    }
    DitConfig config = config_;
    config.image.height = sizes.height;
    config.image.width = sizes.width;
    config.text_tokens = sizes.text_tokens;
    if (config.position_base == 0) config.position_base = config_.rows();
    return MakeDitFamily(config);
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    const Tensor tokens = WithoutPadding(prediction, config_.tokens());
    if (config_.of_sets()) return tokens;
    const ImageSpec& image = config_.image;
    const int64_t patch = config_.patch;
    return Unpatchify(tokens, patch, tokens.dim(2) / (patch * patch),
                      image.height, image.width);
  }

 private:
  DitConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeDitFamily(const DitConfig& config) {
  return std::make_shared<DitFamily>(config);
}

}  // namespace trireme
