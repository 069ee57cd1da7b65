#include "trainer/run/shape_latents.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "models/data/surface_draws.h"
#include "models/weights/tensor_source.h"
#include "parallel/stored_tensors.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/core/status.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/stored_model.h"

namespace trireme {
namespace {

struct Found {
  StoredModel model;
  ShapeVaeConfig config;
};

absl::StatusOr<Found> Find(const std::string& path, int64_t latents) {
  Found found;
  ASSIGN_OR_RETURN(found.model, FindStoredModel(path));
  if (!found.model.described.model.has_shape_vae()) {
    return InvalidArgument("{}: found {}, expected an autoencoder of shapes",
                           path, found.model.family->Describe());
  }
  ShapeVae vae = found.model.described.model.shape_vae();
  if (latents > 0) {
    vae.set_latents(static_cast<uint32_t>(latents));
    vae.set_points(std::max(vae.points(), static_cast<uint32_t>(latents)));
  }
  ASSIGN_OR_RETURN(found.config, ResolveShapeVae(vae));
  return found;
}

absl::StatusOr<std::unique_ptr<TensorSource>> WeightsOf(
    const StoredModel& model) {
  const bool ema = !model.is_weight_folder &&
                   StoredTensors::Exist(model.weights + "/" + kEmaFile);
  return OpenWeights(model.weights, ema, *model.family);
}

absl::StatusOr<std::string> ChecksumOf(const StoredModel& model,
                                       const TensorSource& weights) {
  ASSIGN_OR_RETURN(const NameTable names, model.family->Names());
  Checksum checksum;
  for (const NamedShape& parameter : names.parameters()) {
    std::vector<double> values(parameter.shape.num_elements());
    weights.Read(parameter.name, 0, values);
    checksum.Update(parameter.name);
    checksum.Update({reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(double)});
  }
  return checksum.Result().xxh64;
}

}  // namespace

absl::StatusOr<ShapeVaeConfig> ShapeVaeConfigOf(const std::string& path) {
  ASSIGN_OR_RETURN(const Found found, Find(path, /*latents=*/0));
  return found.config;
}

absl::StatusOr<std::unique_ptr<ShapeAutoencoder>> OpenShapeAutoencoder(
    const std::string& path, int64_t latents, Device& device) {
  ASSIGN_OR_RETURN(const Found found, Find(path, latents));
  ASSIGN_OR_RETURN(const auto weights, WeightsOf(found.model));
  return ShapeAutoencoder::Create(found.config, *weights, device);
}

absl::StatusOr<LatentEncoder> ShapeLatentEncoder(const std::string& path,
                                                 int64_t latents,
                                                 Device& device) {
  ASSIGN_OR_RETURN(const Found found, Find(path, latents));
  ASSIGN_OR_RETURN(const auto weights, WeightsOf(found.model));
  ASSIGN_OR_RETURN(std::shared_ptr<const ShapeAutoencoder> autoencoder,
                   ShapeAutoencoder::Create(found.config, *weights, device));
  ASSIGN_OR_RETURN(std::string checksum, ChecksumOf(found.model, *weights));
  std::error_code error;
  return LatentEncoder{
      .autoencoder =
          std::filesystem::absolute(found.model.weights, error).native(),
      .weights_checksum = std::move(checksum),
      .format = {.channels = found.config.latents,
                 .height = found.config.channels,
                 .width = 1},
      .of_sets = true,
      .encode = [autoencoder](
                    const Sample& sample) -> absl::StatusOr<LatentPosterior> {
        const ShapeVaeConfig& config = autoencoder->config();
        const auto there =
            static_cast<int64_t>(sample.surface_points.size()) / 3;
        // All points that there are, as many as it was trained with at most.
        auto surface = DrawSurface(
            sample, std::max(std::min(config.points, there), config.latents),
            config.latents);
        RETURN_IF_ERROR(WithContext(surface.status(), "points"));
        ASSIGN_OR_RETURN(ShapeAutoencoder::Posterior posterior,
                         autoencoder->Encode(*surface));
        return LatentPosterior{{config.channels, 1},
                               std::move(posterior.mean),
                               std::move(posterior.log_variance)};
      }};
}

}  // namespace trireme
