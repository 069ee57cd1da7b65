#include "models/resolve.h"

#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "models/dit/dit_family.h"
#include "models/dit/dit_names.h"
#include "models/hidream/hidream_class.h"
#include "models/hidream/hidream_family.h"
#include "models/mesh_tokens/mesh_decoder_config.h"
#include "models/mesh_tokens/mesh_decoder_family.h"
#include "models/mmdit/mmdit_classes.h"
#include "models/mmdit/mmdit_family.h"
#include "models/objective/classification.h"
#include "models/objective/diffusion.h"
#include "models/objective/next_token.h"
#include "models/objective/reconstruction.h"
#include "models/objective/rectified_flow.h"
#include "models/shape_vae/shape_vae_family.h"
#include "models/shape_vae/shape_vae_names.h"
#include "models/sparse_dit/sparse_dit_config.h"
#include "models/sparse_dit/sparse_dit_family.h"
#include "models/sparse_vae/sparse_vae_config.h"
#include "models/sparse_vae/sparse_vae_family.h"
#include "models/swin/swin_family.h"
#include "models/swin/swin_names.h"
#include "models/triposg/triposg_family.h"
#include "models/triposg/triposg_names.h"
#include "models/weights/transformers_config.h"
#include "models/weights/weight_folder.h"
#include "nlohmann/json.hpp"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxChannels = 1 << 16;

// The classes of all families.
std::vector<ModelClass> Classes() {
  const std::span<const ModelClass> mmdit = MmditClasses();
  std::vector<ModelClass> classes(mmdit.begin(), mmdit.end());
  const std::span<const ModelClass> dit = DitClasses();
  classes.insert(classes.end(), dit.begin(), dit.end());
  classes.push_back(HidreamClass());
  classes.push_back(TriposgClass());
  classes.push_back(ShapeVaeClass());
  classes.push_back(SwinClass());
  return classes;
}

absl::StatusOr<ModelClass> ClassNamed(const FolderConfig& config) {
  std::vector<std::string_view> names;
  for (const ModelClass& model_class : Classes()) {
    if (model_class.name == config.class_name) return model_class;
    names.push_back(model_class.name);
  }
  return FailedPrecondition("{}: {}: found \"{}\", expected {}", config.path,
                            config.class_field, config.class_name,
                            fmt::join(names, " or "));
}

absl::Status CheckPictures(std::string_view family, const DataFormat& data) {
  if (data.tokens == 0) return absl::OkStatus();
  return InvalidArgument(
      "model.{}: found data of sets of tokens, expected pictures (model.dit "
      "and model.mmdit take both, model.triposg sets)",
      family);
}

}  // namespace

int64_t LeastClasses(const Model& model) { return model.has_swin() ? 2 : 0; }

absl::Status NoFamily() {
  const google::protobuf::OneofDescriptor& family =
      *Model::descriptor()->FindOneofByName("family");
  std::string names;
  for (int i = 0; i < family.field_count(); ++i) {
    const bool last = i + 1 == family.field_count();
    names += fmt::format("{}{}",
                         i == 0 ? ""
                         : last ? " or "
                                : ", ",
                         family.field(i)->name());
  }
  return InvalidArgument("model: found no family, expected {}", names);
}

absl::StatusOr<std::shared_ptr<const ModelFamily>> ResolveModel(
    Model& model, const DataFormat& data) {
  if (data.surfaces && !model.has_shape_vae() && !model.has_sparse_vae() &&
      !model.has_sparse_dit() && !model.has_mesh_tokens()) {
    return InvalidArgument(
        "data.shapes: found neither grids nor a volume, expected one for a "
        "model that is no autoencoder of shapes (model.shape_vae)");
  }
  if (data.voxel_resolution > 0 && !model.has_sparse_dit() &&
      !model.has_sparse_vae()) {
    return InvalidArgument(
        "data.shapes.voxels: found, expected mosaics, a volume or none for a "
        "model that knows no places of tokens of their own (model.sparse_dit "
        "and model.sparse_vae do)");
  }
  if (data.mesh_format.has_value() && !model.has_mesh_tokens()) {
    return InvalidArgument(
        "data.shapes.sequences: found, expected mosaics or none for a model "
        "of no sequences (model.mesh_tokens)");
  }
  if (data.views > 1 && !model.has_mmdit()) {
    return InvalidArgument(
        "data: found {} views a sample, expected one for a model that does not "
        "tell them apart (model.mmdit does)",
        data.views);
  }
  switch (model.family_case()) {
    case Model::kDit: {
      ASSIGN_OR_RETURN(const DitConfig config,
                       ResolveDit(model.dit(),
                                  {.channels = data.channels,
                                   .height = data.resolution,
                                   .width = data.resolution},
                                  data.classes,
                                  {.tokens = data.tokens,
                                   .channels = data.token_channels,
                                   .lattice = data.lattice}));
      FillDit(config, *model.mutable_dit());
      return MakeDitFamily(config);
    }
    case Model::kMmdit: {
      const bool of_sets = data.tokens > 0;
      ASSIGN_OR_RETURN(
          const MmditConfig config,
          ResolveMmdit(model.mmdit(),
                       of_sets ? data.token_channels : data.channels,
                       data.resolution, data.tokens, data.views));
      FillMmdit(config, *model.mutable_mmdit());
      return MakeMmditFamily(config);
    }
    case Model::kHidream: {
      RETURN_IF_ERROR(CheckPictures("hidream", data));
      ASSIGN_OR_RETURN(
          const HidreamConfig config,
          ResolveHidream(model.hidream(), data.channels, data.resolution));
      FillHidream(config, *model.mutable_hidream());
      return MakeHidreamFamily(config);
    }
    case Model::kTriposg: {
      if (data.tokens == 0) {
        return InvalidArgument(
            "model.triposg: found data of pictures, expected sets of tokens "
            "(data.shapes)");
      }
      ASSIGN_OR_RETURN(const TriposgConfig config,
                       ResolveTriposg(model.triposg(), data.tokens,
                                      data.token_channels, data.classes));
      FillTriposg(config, *model.mutable_triposg());
      return MakeTriposgFamily(config);
    }
    case Model::kShapeVae: {
      ASSIGN_OR_RETURN(const ShapeVaeConfig config,
                       ResolveShapeVae(model.shape_vae()));
      FillShapeVae(config, *model.mutable_shape_vae());
      return MakeShapeVaeFamily(config);
    }
    case Model::kMeshTokens: {
      if (!data.mesh_format.has_value()) {
        return InvalidArgument(
            "model.mesh_tokens: found other data, expected sequences of "
            "meshes' tokens (data.shapes.sequences)");
      }
      ASSIGN_OR_RETURN(const MeshDecoderConfig config,
                       ResolveMeshTokens(model.mesh_tokens(), *data.mesh_format,
                                         data.sequence_tokens, data.classes));
      FillMeshTokens(config, *model.mutable_mesh_tokens());
      return MakeMeshDecoderFamily(config);
    }
    case Model::kSwin: {
      RETURN_IF_ERROR(CheckPictures("swin", data));
      ASSIGN_OR_RETURN(const SwinConfig config,
                       ResolveSwin(model.swin(), data.channels, data.resolution,
                                   data.classes));
      FillSwin(config, *model.mutable_swin());
      return MakeSwinFamily(config);
    }
    case Model::kSparseDit: {
      if (data.voxel_resolution == 0) {
        return InvalidArgument(
            "model.sparse_dit: found other data, expected voxels "
            "(data.shapes.voxels)");
      }
      ASSIGN_OR_RETURN(
          const SparseDitConfig config,
          ResolveSparseDit(model.sparse_dit(), data.tokens, data.token_channels,
                           data.voxel_resolution, data.classes));
      FillSparseDit(config, *model.mutable_sparse_dit());
      return MakeSparseDitFamily(config);
    }
    case Model::kSparseVae: {
      ASSIGN_OR_RETURN(const SparseVaeConfig config,
                       ResolveSparseVae(model.sparse_vae(), data));
      FillSparseVae(config, *model.mutable_sparse_vae());
      return MakeSparseVaeFamily(config);
    }
    case Model::FAMILY_NOT_SET:
      break;
  }
  return NoFamily();
}

absl::StatusOr<DescribedModel> ModelOfFolder(const std::string& folder) {
  ASSIGN_OR_RETURN(const FolderConfig config, ReadFolderConfig(folder));
  ASSIGN_OR_RETURN(const ModelClass model_class, ClassNamed(config));
  ASSIGN_OR_RETURN(
      const nlohmann::json arguments,
      CompleteArguments(config.path, *config.arguments, model_class));
  DescribedModel described = model_class.read(arguments);
  described.class_names = config.class_names;
  if (described.data.channels < 1 || described.data.channels > kMaxChannels) {
    const std::string field(model_class.channels);
    return FailedPrecondition("{}: {}: found {}, expected 1 to {}", config.path,
                              field, arguments.at(field).dump(), kMaxChannels);
  }
  const auto family = ResolveModel(described.model, described.data);
  RETURN_IF_ERROR(WithContext(family.status(), config.path));
  const absl::StatusOr<NameTable> table = (*family)->Names();
  RETURN_IF_ERROR(WithContext(table.status(), config.path));
  RETURN_IF_ERROR(CompareArguments(config.path, arguments,
                                   nlohmann::json::parse(table->config()),
                                   "of a model that is known here"));
  if (table->library() == WeightLibrary::kTransformers &&
      described.class_names.empty()) {
    described.class_names = StandardClassNames(described.data.classes);
  }
  return described;
}

absl::StatusOr<ResolvedObjective> ResolveObjective(
    ObjectiveConfig& objective, const FieldSpec& samples, uint64_t seed,
    int64_t global_batch, const std::vector<int64_t>& tokens,
    bool learned_variance, bool reconstructs) {
  if (objective.has_classification()) {
    return InvalidArgument(
        "objective: found classification, expected it for a model that names "
        "classes (model.swin) only");
  }
  if (samples.name == kSequenceField) {
    if (objective.kind_case() != ObjectiveConfig::KIND_NOT_SET &&
        !objective.has_next_token()) {
      return InvalidArgument(
          "objective: found another one, expected next_token for a model of "
          "sequences (model.mesh_tokens)");
    }
    objective.mutable_next_token();
    return ResolvedObjective{
        .training = std::make_shared<NextTokenObjective>(global_batch)};
  }
  if (objective.has_next_token()) {
    return InvalidArgument(
        "objective: found next_token, expected it for a model of sequences "
        "(model.mesh_tokens) only");
  }
  if (reconstructs) {
    if (objective.has_rectified_flow() || objective.has_diffusion()) {
      return InvalidArgument(
          "objective: found {}, expected reconstruction for an autoencoder",
          objective.has_diffusion() ? "diffusion" : "rectified_flow");
    }
    objective.mutable_reconstruction();
    return ResolvedObjective{
        .training = std::make_shared<ReconstructionObjective>(global_batch)};
  }
  if (objective.has_reconstruction()) {
    return InvalidArgument(
        "objective: found reconstruction, expected it for an autoencoder "
        "(model.shape_vae, model.sparse_vae) only");
  }
  if (objective.has_diffusion() && !samples.counted_by.empty()) {
    return InvalidArgument(
        "objective: found diffusion, expected rectified_flow for samples of "
        "unlike numbers of tokens (model.sparse_dit)");
  }
  if (objective.has_diffusion()) {
    ASSIGN_OR_RETURN(
        DiffusionConfig config,
        ResolveDiffusion(*objective.mutable_diffusion(), learned_variance));
    return ResolvedObjective{.training = std::make_shared<DiffusionObjective>(
                                 std::move(config), seed, global_batch)};
  }
  if (learned_variance) {
    return InvalidArgument(
        "objective: found rectified_flow, expected diffusion for a model with "
        "learned_variance");
  }
  RectifiedFlow& flow = *objective.mutable_rectified_flow();
  ASSIGN_OR_RETURN(RectifiedFlowConfig config,
                   ResolveRectifiedFlow(flow, samples, tokens.front()));
  for (size_t b = 0; tokens.size() > 1 && b < tokens.size(); ++b) {
    RectifiedFlow sized = flow;
    if (flow.has_dynamic_shift()) sized.clear_shift();
    ASSIGN_OR_RETURN(const RectifiedFlowConfig of_bucket,
                     ResolveRectifiedFlow(sized, samples, tokens[b]));
    config.bucket_shifts.push_back(of_bucket.shift);
  }
  FillRectifiedFlow(config, flow);
  return ResolvedObjective{.training = std::make_shared<RectifiedFlowObjective>(
                               config, seed, global_batch),
                           .sampling_shift = config.shift};
}

absl::StatusOr<ResolvedObjective> ResolveClassification(
    ObjectiveConfig& objective, int64_t global_batch) {
  if (objective.kind_case() != ObjectiveConfig::KIND_NOT_SET &&
      !objective.has_classification()) {
    return InvalidArgument(
        "objective: found another one, expected classification for a model "
        "that names classes (model.swin)");
  }
  Classification& classification = *objective.mutable_classification();
  if (!classification.has_label_smoothing()) {
    classification.set_label_smoothing(0);
  }
  const double smoothing = classification.label_smoothing();
  RETURN_IF_ERROR(
      CheckRange("objective.classification.label_smoothing", smoothing, 0, 1));
  return ResolvedObjective{
      .training =
          std::make_shared<ClassificationObjective>(smoothing, global_batch)};
}

}  // namespace trireme
