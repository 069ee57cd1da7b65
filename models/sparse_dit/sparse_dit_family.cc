#include "models/sparse_dit/sparse_dit_family.h"

#include <algorithm>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/sparse_dit/sparse_dit.h"
#include "models/transformer/picture_chunk.h"
#include "models/transformer/token_layout.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// As many as there may be, each at a place of its own.
double TypicalVoxels(const SparseDitConfig& config) {
  const int64_t side = config.resolution;
  return static_cast<double>(std::min(config.tokens, side * side * side));
}

class SparseDitFamily final : public ModelFamily {
 public:
  explicit SparseDitFamily(const SparseDitConfig& config) : config_(config) {}

  std::string Describe() const override {
    return fmt::format(
        "Sparse DiT: {} blocks, width {}, {} heads, {} of keys, at most {} "
        "voxels of a grid of {}, {} of its condition",
        config_.layers, config_.hidden, config_.heads, config_.key_heads,
        config_.tokens, config_.resolution, config_.condition.tokens());
  }

  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "Sparse DiT";
    shape.layers = config_.layers;
    shape.hidden = config_.hidden;
    shape.mlp_hidden = config_.mlp_hidden();
    // Ranks of tp have whole heads of keys.
    shape.heads = config_.key_heads;
    shape.tokens = config_.tokens;
    shape.text_tokens = config_.condition.tokens();
    shape.text = ModelShape::Text::kCross;
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kTokenSetField,
            .shape = {config_.tokens, config_.channels},
            .counted_by = kVoxelCountField,
            .job_field = "data.shapes"};
  }

  // The embedding reads samples and the condition, the head samples, all blocks
  // where tokens lie and how much there is of them and of the condition.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    const bool embedding = request.has_embedding();
    std::vector<FieldSpec> fields;
    if (embedding || request.has_head(config_.layers)) {
      fields.push_back(samples());
    }
    fields.push_back({.name = kVoxelsField,
                      .dtype = DType::kInt32,
                      .shape = {config_.tokens, 3},
                      .places = config_.resolution,
                      .job_field = "data.shapes.voxels"});
    fields.push_back({.name = kVoxelCountField,
                      .dtype = DType::kInt32,
                      .typical = TypicalVoxels(config_),
                      .job_field = "data.shapes.voxels"});
    const std::vector<FieldSpec> condition =
        FieldsOf(config_.condition, "model.sparse_dit", embedding);
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
    return std::make_unique<PictureChunk<SparseDitPart>>(
        std::make_shared<SparseDitPart>(store, grid, config_, request), request,
        store.dtype(), inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return FailedPrecondition(
        "model.sparse_dit: found this family, expected one that has a class in "
        "the ecosystem (the published network compresses keys by convolutions, "
        "and comes as pickles)");
  }

  Tensor ToSamples(const Tensor& prediction) const override {
    return WithoutPadding(prediction, config_.tokens);
  }

 private:
  SparseDitConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeSparseDitFamily(
    const SparseDitConfig& config) {
  return std::make_shared<SparseDitFamily>(config);
}

}  // namespace trireme
