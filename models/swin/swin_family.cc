#include "models/swin/swin_family.h"

#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "fmt/format.h"
#include "models/swin/swin.h"
#include "models/swin/swin_chunk.h"
#include "models/swin/swin_names.h"
#include "models/transformer/block_runs.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class SwinFamily final : public ModelFamily {
 public:
  explicit SwinFamily(const SwinConfig& config) : config_(config) {}

  std::string Describe() const override {
    std::string text = fmt::format(
        "Swin V2: {} blocks in {} stages, width {} to {}, windows of {} of {} "
        "tokens, {} classes",
        config_.layers(), config_.num_stages(), config_.hidden,
        config_.HiddenOf(config_.num_stages() - 1), config_.window,
        config_.TokensOf(0), config_.classes);
    if (config_.moe.has_value()) {
      text += fmt::format(", {} experts in {} blocks, {} of them a token",
                          config_.moe->experts, BlocksWithExperts(),
                          config_.moe->top_k);
    }
    return text;
  }

  const MoeConfig* experts() const override {
    return config_.moe.has_value() ? &*config_.moe : nullptr;
  }

  // Of the first stage; those of the others are multiples.
  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "Swin V2";
    shape.layers = config_.layers();
    shape.hidden = config_.hidden;
    shape.mlp_hidden = config_.mlp_hidden;
    for (const SwinConfig::Stage& stage : config_.stages) {
      shape.heads = std::gcd(shape.heads, stage.heads);
    }
    if (config_.moe.has_value()) {
      shape.experts = config_.moe->experts;
      shape.expert_hidden = config_.moe->expert_hidden;
      shape.shared_hidden = config_.moe->shared_hidden;
    }
    shape.tokens = config_.TokensOf(0);
    shape.context_parallel = false;
    shape.sequence_parallel = false;
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      const SwinBlockSizes sizes = SizesOfBlock(config_, i);
      return std::tuple(sizes.stage, sizes.merges, sizes.moe.has_value(),
                        sizes.drop_path > 0);
    });
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kPixelsField,
            .shape = {config_.channels, config_.side, config_.side},
            .job_field = "data.resolution"};
  }

  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    std::vector<FieldSpec> fields;
    if (request.has_embedding()) fields.push_back(samples());
    if (request.has_head(config_.layers())) {
      fields.push_back({.name = kLabelField, .dtype = DType::kInt32});
    }
    return fields;
  }

  // Its logits.
  FieldSpec predictions() const override {
    return {.name = "logits", .shape = {config_.classes}};
  }
  Tensor ToSamples(const Tensor& prediction) const override {
    return prediction;
  }

  bool classifies() const override { return true; }
  // Classes are what it learns, not what it is told.
  int64_t num_classes() const override { return 0; }
  std::optional<int32_t> NoCondition(
      std::string_view /*field*/) const override {
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<SwinChunk>(
        std::make_unique<SwinPart>(store, grid, config_, request), request,
        inputs, store.dtype());
  }

  absl::StatusOr<NameTable> Names() const override {
    return SwinNames(config_);
  }
  ClassCall Call() const override {
    return {.samples = "pixel_values", .output = "logits", .timestep = ""};
  }

  absl::StatusOr<std::shared_ptr<const ModelFamily>> ForInputs(
      const InputSizes& sizes) const override {
    if (sizes.height == config_.side && sizes.width == config_.side) {
      return std::make_shared<SwinFamily>(config_);
    }
    return InvalidArgument(
        "pixel_values: found pictures of {} x {}, expected {} x {}, of which "
        "windows are made",
        sizes.height, sizes.width, config_.side, config_.side);
  }

 private:
  int64_t BlocksWithExperts() const {
    int64_t blocks = 0;
    for (int64_t i = 0; i < config_.layers(); ++i) {
      blocks += SizesOfBlock(config_, i).moe.has_value() ? 1 : 0;
    }
    return blocks;
  }

  SwinConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeSwinFamily(const SwinConfig& config) {
  return std::make_shared<SwinFamily>(config);
}

}  // namespace trireme
