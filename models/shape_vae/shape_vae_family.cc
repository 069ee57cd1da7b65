#include "models/shape_vae/shape_vae_family.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/shape_vae/shape_vae.h"
#include "models/shape_vae/shape_vae_chunk.h"
#include "models/shape_vae/shape_vae_names.h"
#include "models/transformer/block_runs.h"
#include "runtime/core/status.h"
#include "runtime/ops/distance_loss.h"

namespace trireme {
namespace {

class ShapeVaeFamily final : public ModelFamily {
 public:
  explicit ShapeVaeFamily(const ShapeVaeConfig& config) : config_(config) {}

  std::string Describe() const override {
    return fmt::format(
        "autoencoder of shapes: {} + {} blocks, widths {} and {}, {} heads, "
        "{} latents of {} channels{}",
        config_.encoder_layers, config_.decoder_layers, config_.encoder_hidden,
        config_.decoder_hidden, config_.heads, config_.latents,
        config_.channels, config_.losses.occupancy ? ", occupancy" : "");
  }

  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "autoencoder of shapes";
    shape.layers = config_.layers();
    shape.hidden = config_.decoder_hidden;
    shape.mlp_hidden = kShapeVaeMlpRatio * config_.decoder_hidden;
    shape.heads = config_.heads;
    shape.tokens = config_.latents;
    shape.block_runs = RunsOf(shape.layers, [this](int64_t i) {
      return std::pair(config_.in_encoder(i), i == config_.encoder_layers);
    });
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kSurfaceField,
            .shape = {config_.points, 6},
            .apart = config_.latents,
            .job_field = "model.shape_vae.points"};
  }

  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    std::vector<FieldSpec> fields;
    if (request.has_embedding()) fields.push_back(samples());
    if (request.has_head(config_.layers())) {
      fields.push_back({.name = kQueriesField,
                        .shape = {config_.queries, kQueryColumns},
                        .job_field = "model.shape_vae.queries"});
    }
    return fields;
  }

  bool reconstructs() const override { return true; }
  absl::Status CheckPrecision(DType dtype) const override {
    const ShapeVaeLosses& losses = config_.losses;
    if (DTypeSize(dtype) >= 4 || !losses.of_gradients()) {
      return absl::OkStatus();
    }
    return InvalidArgument(
        "model.shape_vae.losses: found normal {} and eikonal {} with {}, "
        "expected precision FP32 with them: in 16 bits differences vanish",
        losses.normal, losses.eikonal, DTypeName(dtype));
  }
  int64_t num_classes() const override { return 0; }
  std::optional<int32_t> NoCondition(
      std::string_view /*field*/) const override {
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<ShapeVaeChunk>(
        std::make_unique<ShapeVaePart>(store, grid, config_, request), request,
        inputs);
  }

  absl::StatusOr<NameTable> Names() const override {
    return ShapeVaeNames(config_);
  }

 private:
  ShapeVaeConfig config_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeShapeVaeFamily(
    const ShapeVaeConfig& config) {
  return std::make_shared<ShapeVaeFamily>(config);
}

}  // namespace trireme
