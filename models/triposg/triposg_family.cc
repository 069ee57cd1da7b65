#include "models/triposg/triposg_family.h"

#include <string>
#include <tuple>
#include <utility>

#include "fmt/format.h"
#include "models/transformer/block_runs.h"
#include "models/transformer/picture_chunk.h"
#include "models/transformer/token_layout.h"
#include "models/triposg/triposg.h"
#include "models/triposg/triposg_names.h"

namespace trireme {
namespace {

class TriposgFamily final : public ModelFamily {
 public:
  explicit TriposgFamily(const TriposgConfig& config) : config_(config) {}

  std::string Describe() const override {
    std::string text = fmt::format(
        "TripoSG: {} blocks, width {}, {} heads, {} tokens and {} of its "
        "condition",
        config_.layers, config_.hidden, config_.heads, config_.tokens(),
        config_.condition.tokens());
    if (config_.moe.has_value()) {
      text += fmt::format(", {} experts in {} blocks, {} of them a token",
                          config_.moe->experts, config_.expert_blocks,
                          config_.moe->top_k);
    }
    return text;
  }

  const MoeConfig* experts() const override {
    return config_.moe.has_value() ? &*config_.moe : nullptr;
  }
  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "TripoSG";
    shape.layers = config_.layers;
    shape.hidden = config_.hidden;
    shape.mlp_hidden = config_.mlp_hidden();
    shape.heads = config_.heads;
    if (config_.moe.has_value()) {
      shape.experts = config_.moe->experts;
      shape.expert_hidden = config_.moe->expert_hidden;
      shape.shared_hidden = config_.moe->shared_hidden;
    }
    shape.tokens = config_.tokens();
    shape.text_tokens = config_.condition.tokens();
    shape.text = ModelShape::Text::kCross;
    // What is carried to a block differs from one to the next.
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      return std::tuple(config_.has_skip(i), config_.skips_before(i),
                        config_.has_experts(i));
    });
    for (int64_t i = 0; i < config_.half(); ++i) {
      shape.skips.push_back({.made = i, .read = config_.ReaderOf(i)});
    }
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kTokenSetField,
            .shape = {config_.latents, config_.channels},
            .job_field = "data.shapes"};
  }

  // The embedding reads samples and the condition, the head samples, all blocks
  // how much there is of the condition.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    const bool embedding = request.has_embedding();
    std::vector<FieldSpec> fields;
    if (embedding || request.has_head(config_.layers)) {
      fields.push_back(samples());
    }
    const std::vector<FieldSpec> condition =
        FieldsOf(config_.condition, "model.triposg", embedding);
    fields.insert(fields.end(), condition.begin(), condition.end());
    return fields;
  }

  int64_t num_classes() const override { return config_.condition.classes; }

  std::optional<int32_t> NoCondition(std::string_view field) const override {
    return NoConditionOf(config_.condition, field);
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<PictureChunk<TriposgPart>>(
        std::make_shared<TriposgPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return TriposgNames(config_);
  }

  ClassCall Call() const override {
    return {.predicts_data_minus_noise = true};
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    return WithoutPadding(prediction, config_.latents);
  }

 private:
  TriposgConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeTriposgFamily(
    const TriposgConfig& config) {
  return std::make_shared<TriposgFamily>(config);
}

}  // namespace trireme
