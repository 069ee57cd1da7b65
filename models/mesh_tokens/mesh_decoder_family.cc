#include "models/mesh_tokens/mesh_decoder_family.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/mesh_tokens/mesh_decoder.h"
#include "models/mesh_tokens/mesh_decoder_chunk.h"
#include "models/mesh_tokens/mesh_grammar.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class MeshDecoderFamily final : public ModelFamily {
 public:
  explicit MeshDecoderFamily(const MeshDecoderConfig& config)
      : config_(config), grammar_(config.format) {}

  std::string Describe() const override {
    return fmt::format(
        "meshes' tokens: {} blocks, width {}, {} heads, sequences of {} of {} "
        "tokens",
        config_.layers, config_.hidden, config_.heads, config_.tokens,
        config_.vocabulary());
  }

  ModelShape Shape() const override {
    ModelShape shape;
    shape.name = "meshes' tokens";
    shape.layers = config_.layers;
    shape.hidden = config_.hidden;
    shape.mlp_hidden = config_.mlp_hidden();
    shape.heads = config_.heads;
    shape.tokens = config_.tokens;
    return shape;
  }

  FieldSpec samples() const override {
    return {.name = kSequenceField,
            .dtype = DType::kInt32,
            .shape = {config_.tokens},
            .job_field = "data.shapes.sequences.tokens"};
  }

  std::vector<FieldSpec> Fields(const ChunkRequest& request) const override {
    std::vector<FieldSpec> fields;
    if (request.has_embedding()) {
      fields.push_back(samples());
      if (config_.classes > 0) {
        fields.push_back({.name = kLabelField, .dtype = DType::kInt32});
      }
    }
    if (request.has_head(config_.layers)) {
      FieldSpec next = samples();
      next.name = kNextTokensField;
      fields.push_back(std::move(next));
      fields.push_back({.name = kSequenceLengthField,
                        .dtype = DType::kInt32,
                        .typical = static_cast<double>(config_.tokens),
                        .job_field = "data.shapes.sequences.tokens"});
    }
    return fields;
  }

  const TokenGrammar* grammar() const override { return &grammar_; }
  int64_t num_classes() const override { return config_.classes; }
  std::optional<int32_t> NoCondition(
      std::string_view /*field*/) const override {
    return std::nullopt;
  }

  std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                               ParameterStore& store, const ProcessGrid& grid,
                               const StepInputs& inputs) const override {
    return std::make_unique<MeshDecoderChunk>(
        std::make_unique<MeshDecoderPart>(store, grid, config_, request),
        request, inputs, config_.classes);
  }

  absl::StatusOr<NameTable> Names() const override {
    return FailedPrecondition(
        "model.mesh_tokens: found a model that no class of diffusers computes, "
        "expected another family");
  }

 private:
  MeshDecoderConfig config_;
  MeshGrammar grammar_;
};

}  // namespace

std::shared_ptr<const ModelFamily> MakeMeshDecoderFamily(
    const MeshDecoderConfig& config) {
  return std::make_shared<MeshDecoderFamily>(config);
}

}  // namespace trireme
