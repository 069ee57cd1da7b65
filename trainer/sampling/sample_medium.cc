#include "trainer/sampling/sample_medium.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/autoencoder/autoencoder.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/data/latents.h"
#include "models/data/sample_order.h"
#include "models/data/views.h"
#include "models/image/tile.h"
#include "models/image/transform.h"
#include "models/mesh_tokens/mesh_tokens.h"
#include "models/shape/mosaic_tokens.h"
#include "models/shape/view_channels.h"
#include "models/shape/volume_tokens.h"
#include "models/shape/voxel_tokens.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "trainer/checkpoints/shape_latents.h"
#include "trainer/config/local_path.h"
#include "trainer/job/data_config.h"
#include "trainer/sampling/picture_medium.h"
#include "trainer/sampling/shape_medium.h"

namespace trireme {

namespace {

Image ToImage(std::span<const float> pixels, const Shape& shape) {
  return FromFloat(pixels, static_cast<int>(shape.dim(2)),
                   static_cast<int>(shape.dim(1)),
                   static_cast<int>(shape.dim(0)));
}

// Of samples that are latents [c, h, w].
ViewLayout LayoutOf(const Shape& shape, const Latents& latents) {
  const int64_t views = std::max<int64_t>(latents.views(), 1);
  return {.channels = shape.dim(0),
          .views = views,
          .height = shape.dim(1) / views,
          .width = shape.dim(2)};
}

// Whether the autoencoder decodes them; of views those of as many pictures as
// fill the channels.
absl::Status CheckDecodes(const AutoencoderConfig& config,
                          const ViewLayout& layout, const Latents& latents) {
  const std::string& folder = latents.autoencoder();
  const int64_t decoded = layout.channels - latents.extra_channels();
  if (layout.views > 1 ? decoded % config.latent_channels != 0
                       : decoded != config.latent_channels) {
    return FailedPrecondition(
        "{}: found an autoencoder of {} channels, expected {}{}, as the "
        "latents have",
        folder, config.latent_channels, layout.views > 1 ? "a divisor of " : "",
        decoded);
  }
  if (config.picture_channels == 1 || config.picture_channels == 3) {
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "{}: found pictures of {} channels, expected 1 or 3", folder,
      config.picture_channels);
}

// What a model has drawn, as the autoencoder has latents.
std::vector<float> Unscaled(std::span<const float> sample,
                            const Latents& latents) {
  std::vector<float> values;
  for (const float value : sample) {
    values.push_back(static_cast<float>(value / latents.scaling_factor() +
                                        latents.shift_factor()));
  }
  return values;
}

// The first channels of latents that nothing here decodes: three as colours, or
// one. Two deviations of what a model learns are as much as a colour has.
PictureMedium::ToImage FirstChannelsOf(const FieldSpec& samples,
                                       const Latents& latents) {
  const ViewLayout layout = LayoutOf(samples.shape, latents);
  return [layout](std::span<const float> sample) -> absl::StatusOr<Image> {
    const int64_t channels = layout.channels < 3 ? 1 : 3;
    std::vector<Image> images;
    for (int64_t view = 0; view < layout.views; ++view) {
      std::vector<float> values =
          ChannelsOfView(sample, layout, view, 0, channels);
      for (float& value : values) value *= 0.5F;
      images.push_back(
          ToImage(values, {channels, layout.height, layout.width}));
    }
    return TilePictures(images, static_cast<int>(layout.views));
  };
}

// Drawn latents as their files have them.
PictureMedium::ToStored StoredAs(const FieldSpec& samples,
                                 const Latents& latents) {
  const ViewLayout layout = LayoutOf(samples.shape, latents);
  const auto scaled =
      static_cast<size_t>(layout.elements() / layout.channels *
                          (layout.channels - latents.extra_channels()));
  return [latents, scaled](std::span<const float> sample) {
    std::vector<float> values = Unscaled(sample.first(scaled), latents);
    values.insert(values.end(), sample.begin() + scaled, sample.end());
    return values;
  };
}

absl::StatusOr<PictureMedium::ToImage> DecoderOf(const FieldSpec& samples,
                                                 const Latents& latents,
                                                 Device& device) {
  ASSIGN_OR_RETURN(const std::string folder, LocalPath(latents.autoencoder()));
  ASSIGN_OR_RETURN(std::shared_ptr<const Autoencoder> autoencoder,
                   Autoencoder::Open(folder, device, {.encoder = false}));
  const ViewLayout layout = LayoutOf(samples.shape, latents);
  RETURN_IF_ERROR(CheckDecodes(autoencoder->config(), layout, latents));
  // Views side by side, a row for each picture that one consists of.
  return [autoencoder, latents, layout,
          &device](std::span<const float> sample) -> absl::StatusOr<Image> {
    const int64_t channels = autoencoder->config().latent_channels;
    const int64_t decoded = layout.channels - latents.extra_channels();
    std::vector<Image> images;
    for (int64_t first = 0; first < decoded; first += channels) {
      for (int64_t view = 0; view < layout.views; ++view) {
        const Tensor picture = autoencoder->Decode(Upload<float>(
            device, {1, channels, layout.height, layout.width},
            Unscaled(ChannelsOfView(sample, layout, view, first, channels),
                     latents)));
        RETURN_IF_ERROR(device.status());
        images.push_back(
            ToImage(Download<float>(picture),
                    {picture.dim(1), picture.dim(2), picture.dim(3)}));
      }
    }
    return TilePictures(images, static_cast<int>(layout.views));
  };
}

// Pictures side by side, and their depths below.
Image PictureOfViews(std::span<const float> sample, const ViewLayout& layout) {
  std::vector<Image> images;
  const auto add = [&](int64_t view, int64_t first, int64_t channels) {
    const Shape shape{channels, layout.height, layout.width};
    images.push_back(WithChannels(
        ToImage(ChannelsOfView(sample, layout, view, first, channels), shape),
        static_cast<int>(kColorChannels)));
  };
  for (int64_t view = 0; view < layout.views; ++view) {
    add(view, 0, kColorChannels);
  }
  for (int64_t view = 0; view < layout.views; ++view) {
    add(view, kDepthChannel, 1);
  }
  return TilePictures(images, static_cast<int>(layout.views));
}

ShapeMedium::FieldOf MosaicFieldOf(int resolution) {
  return [resolution](
             std::span<const float> sample,
             const Sample& /*prompt*/) -> absl::StatusOr<PointFunction> {
    ASSIGN_OR_RETURN(MosaicSdf mosaic, MosaicFromStandard(sample, resolution));
    // The field refers to the mosaic.
    auto kept = std::make_shared<const MosaicSdf>(std::move(mosaic));
    return [kept, field = std::make_shared<const MosaicField>(*kept)](
               std::span<const Vector3f> points, std::span<float> values) {
      field->Distances(points, values);
      return absl::OkStatus();
    };
  };
}

PointFunction DistancesOf(VolumeField volume) {
  return [field = std::make_shared<const VolumeField>(std::move(volume))](
             std::span<const Vector3f> points, std::span<float> values) {
    field->Distances(points, values);
    return absl::OkStatus();
  };
}

ShapeMedium::FieldOf VolumeFieldOf(const VolumeShape& shape) {
  return [shape](std::span<const float> sample,
                 const Sample& /*prompt*/) -> absl::StatusOr<PointFunction> {
    ASSIGN_OR_RETURN(VolumeField volume,
                     VolumeField::FromTokens(sample, shape));
    return DistancesOf(std::move(volume));
  };
}

// At the voxels that a sample was drawn for.
ShapeMedium::FieldOf VoxelFieldOf(const VoxelShape& shape) {
  return [shape](std::span<const float> sample,
                 const Sample& prompt) -> absl::StatusOr<PointFunction> {
    ASSIGN_OR_RETURN(VolumeField volume,
                     VoxelField(prompt.voxels, sample, shape));
    return DistancesOf(std::move(volume));
  };
}

// Tokens are whole numbers, which fp32 holds.
ShapeMedium::MeshOf SequenceMeshOf(const MeshTokenFormat& format) {
  return [format](std::span<const float> sample, const Sample& /*prompt*/,
                  int /*refinements*/) -> absl::StatusOr<Mesh> {
    return ToMesh(
        DecodeMesh(format, std::vector<int32_t>(sample.begin(), sample.end()))
            .mesh);
  };
}

std::string LatentsText(int64_t channels, int64_t lattice) {
  return lattice > 0
             ? fmt::format("{} channels on a grid of {}", channels, lattice)
             : fmt::format("{} channels", channels);
}

// At the places that a sample was drawn for, where latents have some.
absl::StatusOr<ShapeMedium::FieldOf> LatentFieldOf(const Latents& latents,
                                                   Device& device) {
  ASSIGN_OR_RETURN(const std::string folder, LocalPath(latents.autoencoder()));
  ASSIGN_OR_RETURN(const std::shared_ptr<const FieldAutoencoder> autoencoder,
                   OpenFieldAutoencoder(folder, latents.tokens(), device));
  const LatentFormat format = autoencoder->latents();
  if (format.height != latents.token_channels() ||
      format.lattice != latents.lattice()) {
    return FailedPrecondition(
        "{}: found an autoencoder of {}, expected {}, as the latents have",
        latents.autoencoder(), LatentsText(format.height, format.lattice),
        LatentsText(latents.token_channels(), latents.lattice()));
  }
  return [autoencoder, latents](
             std::span<const float> sample,
             const Sample& prompt) -> absl::StatusOr<PointFunction> {
    ASSIGN_OR_RETURN(PointFunction field,
                     autoencoder->Decode(Unscaled(sample, latents), prompt));
    // The field refers to the autoencoder.
    return [autoencoder, field = std::move(field)](
               std::span<const Vector3f> points, std::span<float> values) {
      return field(points, values);
    };
  };
}

}  // namespace

bool DrawsFields(const Data& data) {
  if (data.has_shapes()) {
    return !data.shapes().has_sequences() && !data.shapes().has_views();
  }
  return data.latents().tokens() > 0;
}

bool DrawsShapes(const Data& data) {
  return DrawsFields(data) || data.shapes().has_sequences();
}

absl::StatusOr<std::unique_ptr<SampleMedium>> MediumOf(
    const ModelFamily& family, const Data& data, Device& device, KeptParts kept,
    const ShapeFiles& files) {
  const FieldSpec samples = family.samples();
  if (data.shapes().has_sequences()) {
    return std::make_unique<ShapeMedium>(
        samples, SequenceMeshOf(MeshFormatOf(data.shapes().sequences())),
        files);
  }
  if (data.shapes().has_views()) {
    return std::make_unique<PictureMedium>(
        samples, [layout = LayoutOfViews(data.shapes().views().count(),
                                         data.shapes().views().resolution())](
                     std::span<const float> sample) {
          return PictureOfViews(sample, layout);
        });
  }
  if (data.has_shapes()) {
    const Shapes& shapes = data.shapes();
    if (shapes.has_voxels()) {
      return std::make_unique<ShapeMedium>(
          samples, VoxelFieldOf(VoxelShapeOf(shapes)), kept, files);
    }
    return std::make_unique<ShapeMedium>(
        samples,
        shapes.has_volume()
            ? VolumeFieldOf(VolumeShapeOf(shapes))
            : MosaicFieldOf(static_cast<int>(shapes.resolution())),
        kept, files);
  }
  if (data.latents().tokens() > 0) {
    ASSIGN_OR_RETURN(ShapeMedium::FieldOf field,
                     LatentFieldOf(data.latents(), device));
    return std::make_unique<ShapeMedium>(samples, std::move(field), kept,
                                         files);
  }
  PictureMedium::ToImage to_image =
      [shape = samples.shape](std::span<const float> sample) {
        return ToImage(sample, shape);
      };
  PictureMedium::ToStored to_stored;
  if (data.has_latents() && data.latents().autoencoder().empty()) {
    to_image = FirstChannelsOf(samples, data.latents());
    to_stored = StoredAs(samples, data.latents());
  } else if (data.has_latents()) {
    ASSIGN_OR_RETURN(to_image, DecoderOf(samples, data.latents(), device));
  }
  return std::make_unique<PictureMedium>(samples, std::move(to_image),
                                         std::move(to_stored));
}

absl::Status RehearseDecoding(const ModelFamily& family, const Data& data,
                              Device& dry) {
  if (!data.has_latents()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string folder,
                   LocalPath(data.latents().autoencoder()));
  if (data.latents().tokens() > 0) {
    ASSIGN_OR_RETURN(
        const auto autoencoder,
        RehearseFieldAutoencoder(folder, data.latents().tokens(), dry));
    return autoencoder->RehearseDecoding();
  }
  // Nothing is decoded.
  if (folder.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const AutoencoderConfig config,
                   ReadAutoencoderConfig(folder));
  const ViewLayout layout = LayoutOf(family.samples().shape, data.latents());
  RETURN_IF_ERROR(CheckDecodes(config, layout, data.latents()));
  Autoencoder::WithoutValues(config, dry, {.encoder = false})
      ->Decode(Tensor::Empty(
          dry, {1, config.latent_channels, layout.height, layout.width},
          DType::kFloat32));
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PredictMemoryOfDecoding(const ModelFamily& family,
                                                const Data& data) {
  CpuDevice dry(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  RETURN_IF_ERROR(RehearseDecoding(family, data, dry));
  return dry.Statistics().peak_bytes;
}

absl::Status TakeReal(const Dataset& dataset, const SampleParts& parts,
                      int64_t skip, int64_t least, int64_t most,
                      const std::string& things,
                      const std::function<absl::Status(const Sample&)>& take) {
  const SampleOrder order(/*seed=*/0, dataset.size());
  int64_t taken = 0;
  for (int64_t i = skip; i < dataset.size() && taken < most; ++i) {
    const absl::StatusOr<Sample> sample =
        dataset.ReadParts(order.Index(i), parts);
    if (!sample.ok()) continue;
    RETURN_IF_ERROR(take(*sample));
    ++taken;
  }
  if (taken >= least) return absl::OkStatus();
  return FailedPrecondition(
      "found {} readable {} to compare with{}, expected {}", taken, things,
      skip > 0 ? fmt::format(" beside {} others", skip) : "", least);
}

}  // namespace trireme
