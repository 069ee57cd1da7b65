#include "trainer/sampling/reconstructions.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/data/dataset.h"
#include "models/data/surface_draws.h"
#include "models/shape/volume_tokens.h"
#include "models/shape/voxel_tokens.h"
#include "models/shape_vae/shape_autoencoder.h"
#include "models/sparse_vae/voxel_autoencoder.h"
#include "runtime/core/status.h"
#include "trainer/batches.h"
#include "trainer/data_config.h"
#include "trainer/run/shape_latents.h"
#include "trainer/run/voxel_model.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/shape_medium.h"

namespace trireme {
namespace {

// What is compared over all shapes.
struct Figures {
  int64_t inside_both = 0;
  int64_t inside_either = 0;
  double error = 0;
  int64_t near = 0;
};

// An autoencoder, as far as one needs it to show what it gives back.
struct GivesBack {
  // Of what is made of a shape.
  FieldSpec spec;
  std::function<absl::StatusOr<std::vector<float>>(const Sample&)> of;
  // Its distances.
  ShapeMedium::FieldOf field;
  // Beyond which distances are cut off, and what is taken from those of the
  // data before: shapes may be thickened.
  double cut_off = 0;
  double thickened = 0;
  // Whether it gives back which points are inside, and no distances.
  bool occupancy = false;
};

struct Measured {
  std::vector<float> given;
  std::vector<float> got;
};

// The field at points with distances [.., 4].
absl::StatusOr<Measured> Measure(const PointFunction& field,
                                 const GivesBack& autoencoder,
                                 std::span<const float> rows) {
  std::vector<Vector3f> points;
  Measured measured;
  for (size_t i = 0; i + 4 <= rows.size(); i += 4) {
    points.push_back({rows[i], rows[i + 1], rows[i + 2]});
    measured.given.push_back(
        static_cast<float>(rows[i + 3] - autoencoder.thickened));
  }
  measured.got.resize(points.size());
  RETURN_IF_ERROR(field(points, measured.got));
  return measured;
}

absl::Status Compare(const GivesBack& autoencoder,
                     std::span<const float> given_back, const Sample& sample,
                     Figures& figures) {
  ASSIGN_OR_RETURN(const PointFunction field,
                   autoencoder.field(given_back, sample));
  ASSIGN_OR_RETURN(const Measured anywhere,
                   Measure(field, autoencoder, sample.uniform_distances));
  for (size_t i = 0; i < anywhere.given.size(); ++i) {
    const bool given = anywhere.given[i] < 0, got = anywhere.got[i] < 0;
    figures.inside_both += given && got;
    figures.inside_either += given || got;
  }
  ASSIGN_OR_RETURN(const Measured near,
                   Measure(field, autoencoder, sample.near_distances));
  const auto most = static_cast<float>(autoencoder.cut_off);
  for (size_t i = 0; i < near.given.size(); ++i) {
    figures.error +=
        autoencoder.occupancy
            ? static_cast<double>((near.got[i] < 0) != (near.given[i] < 0))
            : std::abs(near.got[i] - std::clamp(near.given[i], -most, most));
  }
  figures.near += static_cast<int64_t>(near.given.size());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> MeanLatents(
    const ShapeAutoencoder& autoencoder, const Sample& sample) {
  const ShapeVaeConfig& config = autoencoder.config();
  const auto there = static_cast<int64_t>(sample.surface_points.size()) / 3;
  ASSIGN_OR_RETURN(
      const std::vector<float> surface,
      DrawSurface(sample, std::min(config.points, there), config.latents));
  ASSIGN_OR_RETURN(const ShapeAutoencoder::Posterior posterior,
                   autoencoder.Encode(surface));
  return std::vector<float>(posterior.mean.begin(), posterior.mean.end());
}

// Of points, whose latents' means are decoded.
absl::StatusOr<GivesBack> OfPoints(const std::string& model, Device& device) {
  ASSIGN_OR_RETURN(std::shared_ptr<const ShapeAutoencoder> autoencoder,
                   OpenShapeAutoencoder(model, /*latents=*/0, device));
  const ShapeVaeConfig& config = autoencoder->config();
  return GivesBack{
      .spec = {.name = kTokenSetField,
               .shape = {config.latents, config.channels}},
      .of =
          [autoencoder](const Sample& sample) {
            return MeanLatents(*autoencoder, sample);
          },
      .field = [autoencoder](
                   std::span<const float> latents,
                   const Sample& /*prompt*/) -> absl::StatusOr<PointFunction> {
        ASSIGN_OR_RETURN(std::shared_ptr<const ShapeAutoencoder::Field> field,
                         autoencoder->Decode(latents));
        return [autoencoder, field](std::span<const Vector3f> points,
                                    std::span<float> values) {
          return field->Distances(points, values);
        };
      },
      .cut_off = config.losses.truncation,
      .occupancy = config.losses.occupancy};
}

// Of voxels, at which it gives distances back.
absl::StatusOr<GivesBack> OfVoxels(const std::string& model, const Data& data,
                                   Device& device) {
  ASSIGN_OR_RETURN(
      std::shared_ptr<const VoxelAutoencoder> autoencoder,
      OpenVoxelAutoencoder(model, DataFormatOf(data, /*classes=*/0), device));
  const VoxelShape shape = VoxelShapeOf(data.shapes());
  const FieldSpec spec = {.name = kTokenSetField,
                          .shape = {shape.most_tokens, shape.token_channels()}};
  return GivesBack{
      .spec = spec,
      .of = [autoencoder, size = spec.shape.num_elements()](
                const Sample& sample) -> absl::StatusOr<std::vector<float>> {
        ASSIGN_OR_RETURN(
            std::vector<float> features,
            autoencoder->GiveBack(sample.voxels, sample.token_set));
        features.resize(size, 0.0F);
        return features;
      },
      .field = [shape](std::span<const float> features,
                       const Sample& prompt) -> absl::StatusOr<PointFunction> {
        ASSIGN_OR_RETURN(VolumeField volume,
                         VoxelField(prompt.voxels, features, shape));
        return [field = std::make_shared<const VolumeField>(std::move(volume))](
                   std::span<const Vector3f> points, std::span<float> values) {
          field->Distances(points, values);
          return absl::OkStatus();
        };
      },
      .cut_off = shape.cut_off(),
      .thickened = shape.thickened()};
}

}  // namespace

absl::StatusOr<ReconstructionReport> DrawReconstructions(
    const ReconstructionOptions& options, const Data& data, Device& device) {
  ASSIGN_OR_RETURN(const GivesBack autoencoder,
                   data.shapes().has_voxels()
                       ? OfVoxels(options.model, data, device)
                       : OfPoints(options.model, device));
  const ShapeMedium medium(autoencoder.spec, autoencoder.field, KeptParts::kAll,
                           options.shape_files);
  RETURN_IF_ERROR(medium.CheckFiles(options.out, options.overwrite));
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> dataset,
                   data.held_out() > 0 ? OpenHeldOut(data) : OpenDataset(data));
  std::vector<std::string> names;
  std::vector<float> given_back;
  std::vector<Sample> prompts;
  Figures figures;
  for (int64_t i = 0;
       i < dataset->size() && static_cast<int64_t>(names.size()) < options.most;
       ++i) {
    const absl::StatusOr<Sample> sample = dataset->Read(i);
    if (!sample.ok()) continue;
    ASSIGN_OR_RETURN(const std::vector<float> made, autoencoder.of(*sample));
    RETURN_IF_ERROR(Compare(autoencoder, made, *sample, figures));
    given_back.insert(given_back.end(), made.begin(), made.end());
    prompts.emplace_back().voxels = sample->voxels;
    names.push_back(sample->caption.empty() ? sample->key : sample->caption);
  }
  if (names.empty()) {
    return NotFound("found no readable shape among {}", dataset->size());
  }
  const auto shapes = static_cast<int64_t>(names.size());
  RETURN_IF_ERROR(medium.Write(options.out, {.names = std::move(names),
                                             .per_row = 1,
                                             .samples = given_back,
                                             .prompts = prompts}));
  return ReconstructionReport{
      .shapes = shapes,
      .files = medium.FilesOf(options.out),
      .figures = fmt::format(
          "given back of {} {} shapes: volume IoU {:.3f}, {} near the surface "
          "{:.4f}\n",
          shapes, data.held_out() > 0 ? "held-out" : "training",
          static_cast<double>(figures.inside_both) /
              std::max<int64_t>(figures.inside_either, 1),
          autoencoder.occupancy ? "share on the wrong side" : "mean error",
          figures.error / std::max<int64_t>(figures.near, 1))};
}

}  // namespace trireme
