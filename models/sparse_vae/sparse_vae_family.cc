#include "models/sparse_vae/sparse_vae_family.h"

#include <string>
#include <tuple>
#include <utility>

#include "fmt/format.h"
#include "models/shape_vae/shape_vae_config.h"
#include "models/sparse_vae/sparse_vae.h"
#include "models/sparse_vae/sparse_vae_chunk.h"
#include "models/transformer/block_runs.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class SparseVaeFamily final : public ModelFamily {
 public:
  explicit SparseVaeFamily(const SparseVaeConfig& config) : config_(config) {}

  std::string Describe() const override {
    return fmt::format(
        "autoencoder of sparse voxels: {} levels, {} + {} blocks of width {}, "
        "{} heads, {} voxels of {} cells a side, {} latents of {} channels",
        config_.levels, config_.encoder_layers, config_.decoder_layers,
        config_.hidden, config_.heads, config_.tokens.front(),
        config_.resolution, config_.tokens.back(), config_.channels);
  }

  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "autoencoder of sparse voxels";
    shape.layers = config_.layers();
    shape.hidden = config_.hidden;
    shape.mlp_hidden = kShapeVaeMlpRatio * config_.hidden;
    shape.heads = config_.heads;
    shape.tokens = config_.tokens.back();
    // Convolutions and windows read neighbours wherever they lie: ranks of cp
    // would all compute the same.
    shape.context_parallel = false;
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      return std::tuple(config_.kind(i), config_.level_before(i),
                        i == config_.first_encoder(),
                        i == config_.first_decoder());
    });
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kTokenSetField,
            .shape = {config_.tokens.front(), config_.voxel_channels},
            .job_field = "data.shapes.voxels"};
  }

  // All blocks read where the cells lie.
  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    std::vector<FieldSpec> fields = {
        {.name = kVoxelsField,
         .dtype = DType::kInt32,
         .shape = {config_.tokens.front(), 3},
         .job_field = "data.shapes.voxels.tokens"},
        {.name = kVoxelCountField,
         .dtype = DType::kInt32,
         .typical = static_cast<double>(config_.tokens.front()),
         .job_field = "data.shapes.voxels.tokens"}};
    if (request.has_embedding() || request.has_head(config_.layers())) {
      fields.push_back(samples());
    }
    if (request.has_head(config_.layers())) {
      fields.push_back({.name = kVoxelKindsField,
                        .dtype = DType::kInt32,
                        .shape = {config_.tokens.front()},
                        .job_field = "data.shapes.voxels.tokens"});
    }
    return fields;
  }

  bool reconstructs() const override { return true; }
  int64_t num_classes() const override { return 0; }
  std::optional<int32_t> NoCondition(
      std::string_view /*field*/) const override {
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<SparseVaeChunk>(
        std::make_unique<SparseVaePart>(store, grid, config_, request), request,
        inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return FailedPrecondition(
        "model.sparse_vae: found a model that no class of diffusers computes, "
        "expected another family");
  }

 private:
  SparseVaeConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeSparseVaeFamily(
    const SparseVaeConfig& config) {
  return std::make_shared<SparseVaeFamily>(config);
}

}  // namespace trireme
