#include "trainer/job/data_config.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/autoencoder/latent_cache.h"
#include "models/data/buckets.h"
#include "models/data/webdataset.h"
#include "models/shape/shape_cache.h"
#include "models/shape/view_channels.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"
#include "trainer/config/local_path.h"

namespace trireme {
namespace {

// Those of caches (tools/data_command.cc).
constexpr int64_t kMaxMosaicGrids = 4096;
constexpr int64_t kMaxMosaicResolution = 16;
// A vertex's three coordinates are one positive number of 32 bits.
constexpr int64_t kMaxSequenceBits = 10;
constexpr int64_t kMaxSequenceTokens = 1 << 20;

absl::Status FillSequences(Shapes& shapes) {
  if (shapes.grids() > 0 || shapes.resolution() > 0) {
    return InvalidArgument(
        "data.shapes.sequences: found with {}, expected mosaics or sequences",
        shapes.grids() > 0 ? "grids" : "resolution");
  }
  const MeshTokenFormat defaults;
  MeshSequences& sequences = *shapes.mutable_sequences();
  if (!sequences.has_bits()) sequences.set_bits(defaults.bits);
  if (!sequences.has_block_bits()) {
    sequences.set_block_bits(
        std::min<uint32_t>(defaults.block_bits, sequences.bits() - 1));
  }
  RETURN_IF_ERROR(CheckRange("data.shapes.sequences.bits", sequences.bits(), 2,
                             kMaxSequenceBits));
  RETURN_IF_ERROR(CheckRange("data.shapes.sequences.block_bits",
                             sequences.block_bits(), 1, sequences.bits() - 1));
  return CheckRange("data.shapes.sequences.tokens", sequences.tokens(),
                    kShortestMeshSequence, kMaxSequenceTokens);
}

constexpr int64_t kMaxPictureSide = 8192;
// Each is a chunk of its own on every rank.
constexpr size_t kMaxSizes = 256;

// Of samples that are no pictures.
absl::Status CheckNoPictures(const Data& data, std::string_view found) {
  if (data.resolution() == 0 && !data.has_channels() && !data.has_buckets()) {
    return absl::OkStatus();
  }
  return InvalidArgument("data.{}: found with {}, expected of pictures only",
                         data.has_channels()  ? "channels"
                         : data.has_buckets() ? "buckets"
                                              : "resolution",
                         found);
}

std::vector<PictureSize> SizesIn(const PictureBuckets& buckets) {
  std::vector<PictureSize> sizes;
  for (const PictureBuckets::Size& size : buckets.sizes()) {
    sizes.push_back({size.height(), size.width()});
  }
  return sizes;
}

void SetSizes(const std::vector<PictureSize>& sizes, PictureBuckets& buckets) {
  buckets.clear_sizes();
  for (const PictureSize& size : sizes) {
    PictureBuckets::Size* const added = buckets.add_sizes();
    added->set_height(static_cast<uint32_t>(size.height));
    added->set_width(static_cast<uint32_t>(size.width));
  }
}

absl::Status CheckSides(const PictureBuckets& buckets) {
  for (int i = 0; i < buckets.sizes_size(); ++i) {
    const std::string field = fmt::format("data.buckets.sizes[{}].", i);
    RETURN_IF_ERROR(CheckRange(field + "height", buckets.sizes(i).height(), 1,
                               kMaxPictureSide));
    RETURN_IF_ERROR(CheckRange(field + "width", buckets.sizes(i).width(), 1,
                               kMaxPictureSide));
  }
  return absl::OkStatus();
}

// Makes the sizes of an area, where one is given.
absl::Status FillSizesOfArea(PictureBuckets& buckets,
                             std::vector<PictureSize>& sizes) {
  if (buckets.side() == 0) {
    if (!buckets.has_step() && !buckets.has_max_ratio()) {
      return absl::OkStatus();
    }
    return InvalidArgument("data.buckets.{}: found without side, expected both",
                           buckets.has_step() ? "step" : "max_ratio");
  }
  if (!buckets.has_step()) buckets.set_step(64);
  if (!buckets.has_max_ratio()) buckets.set_max_ratio(2);
  RETURN_IF_ERROR(
      CheckRange("data.buckets.side", buckets.side(), 1, kMaxPictureSide));
  RETURN_IF_ERROR(
      CheckRange("data.buckets.step", buckets.step(), 1, buckets.side()));
  RETURN_IF_ERROR(
      CheckRange("data.buckets.max_ratio", buckets.max_ratio(), 1, 16));
  std::vector<PictureSize> made =
      SizesOfArea(buckets.side(), buckets.step(), buckets.max_ratio());
  // What a run's job has was made of the same side.
  if (!sizes.empty() && sizes != made) {
    return InvalidArgument(
        "data.buckets.sizes: found {} with side, expected none, or the {} that "
        "side makes",
        sizes.size(), made.size());
  }
  sizes = std::move(made);
  return absl::OkStatus();
}

absl::Status FillBuckets(Data& data) {
  if (!data.has_buckets()) return absl::OkStatus();
  PictureBuckets& buckets = *data.mutable_buckets();
  if (data.resolution() != 0) {
    return InvalidArgument(
        "data.resolution: found {} with data.buckets, expected one of them",
        data.resolution());
  }
  RETURN_IF_ERROR(CheckSides(buckets));
  std::vector<PictureSize> sizes = SizesIn(buckets);
  SortSizes(sizes);
  RETURN_IF_ERROR(FillSizesOfArea(buckets, sizes));
  if (sizes.empty() || sizes.size() > kMaxSizes) {
    return InvalidArgument(
        "data.buckets: found {} sizes, expected 1 to {} (sizes, or side)",
        sizes.size(), kMaxSizes);
  }
  SetSizes(sizes, buckets);
  if (buckets.smaller() == PictureBuckets::SMALLER_UNSPECIFIED) {
    buckets.set_smaller(PictureBuckets::REFUSE);
  }
  return absl::OkStatus();
}

// As many places as the largest lattice has.
constexpr int64_t kMaxVoxels =
    int64_t{kMaxVolumeCells} * kMaxVolumeCells * kMaxVolumeCells;

absl::Status FillVoxels(Shapes& shapes) {
  if (shapes.grids() > 0 || shapes.has_volume() || shapes.has_sequences()) {
    return InvalidArgument(
        "data.shapes.voxels: found with data.shapes.{}, expected one of them",
        shapes.grids() > 0    ? "grids"
        : shapes.has_volume() ? "volume"
                              : "sequences");
  }
  Shapes::Voxels& voxels = *shapes.mutable_voxels();
  if (!voxels.has_patch()) voxels.set_patch(1);
  RETURN_IF_ERROR(CheckRange("data.shapes.voxels.resolution",
                             voxels.resolution(), 2, kMaxVolumeCells));
  RETURN_IF_ERROR(CheckRange("data.shapes.voxels.patch", voxels.patch(), 1,
                             voxels.resolution()));
  if (voxels.resolution() % voxels.patch() != 0) {
    return InvalidArgument(
        "data.shapes.voxels.patch: found {}, expected a divisor of the "
        "resolution, {}",
        voxels.patch(), voxels.resolution());
  }
  if (!voxels.has_whole()) voxels.set_whole(1);
  if (voxels.whole() == 0 ||
      voxels.resolution() / voxels.patch() % voxels.whole() != 0) {
    return InvalidArgument(
        "data.shapes.voxels.whole: found {}, expected a divisor of {}, the "
        "tokens along a side",
        voxels.whole(), voxels.resolution() / voxels.patch());
  }
  for (int i = 0; i < voxels.coarser_tokens_size(); ++i) {
    RETURN_IF_ERROR(
        CheckRange(fmt::format("data.shapes.voxels.coarser_tokens[{}]", i),
                   voxels.coarser_tokens(i), 1, kMaxVoxels));
  }
  return CheckRange("data.shapes.voxels.tokens", voxels.tokens(), 1,
                    kMaxVoxels);
}

absl::Status CheckViews(const Shapes& shapes) {
  if (shapes.grids() > 0 || shapes.has_volume() || shapes.has_sequences() ||
      shapes.has_voxels()) {
    return InvalidArgument(
        "data.shapes.views: found with data.shapes.{}, expected one of them",
        shapes.grids() > 0       ? "grids"
        : shapes.has_volume()    ? "volume"
        : shapes.has_sequences() ? "sequences"
                                 : "voxels");
  }
  RETURN_IF_ERROR(CheckRange("data.shapes.views.count", shapes.views().count(),
                             1, kMaxShapeViews));
  return CheckRange("data.shapes.views.resolution", shapes.views().resolution(),
                    1, kMaxViewResolution);
}

absl::Status FillShapes(Data& data) {
  if (data.shapes().has_views()) RETURN_IF_ERROR(CheckViews(data.shapes()));
  if (data.shapes().has_voxels()) {
    RETURN_IF_ERROR(FillVoxels(*data.mutable_shapes()));
  }
  if (data.shapes().has_sequences()) {
    RETURN_IF_ERROR(FillSequences(*data.mutable_shapes()));
  }
  RETURN_IF_ERROR(CheckRange("data.shapes.grids", data.shapes().grids(), 0,
                             kMaxMosaicGrids));
  const bool mosaics = data.shapes().grids() > 0;
  if (data.shapes().has_volume()) {
    const Shapes::Volume& volume = data.shapes().volume();
    if (mosaics) {
      return InvalidArgument(
          "data.shapes.volume: found with data.shapes.grids, expected one of "
          "them");
    }
    RETURN_IF_ERROR(CheckRange("data.shapes.volume.cells", volume.cells(), 2,
                               kMaxVolumeCells));
    RETURN_IF_ERROR(CheckRange("data.shapes.volume.patch", volume.patch(), 1,
                               volume.cells()));
    if (volume.cells() % volume.patch() != 0) {
      return InvalidArgument(
          "data.shapes.volume.patch: found {}, expected a divisor of the {} "
          "cells",
          volume.patch(), volume.cells());
    }
    if (volume.occupied_of() % volume.cells() != 0 ||
        volume.occupied_of() > kMaxVolumeCells) {
      return InvalidArgument(
          "data.shapes.volume.occupied_of: found {}, expected a multiple of "
          "the "
          "{} cells, at most {}",
          volume.occupied_of(), volume.cells(), kMaxVolumeCells);
    }
    RETURN_IF_ERROR(CheckRange("data.shapes.volume.overlap", volume.overlap(),
                               0, volume.patch() / 2));
  }
  RETURN_IF_ERROR(CheckRange("data.shapes.resolution",
                             data.shapes().resolution(), mosaics ? 2 : 0,
                             mosaics ? kMaxMosaicResolution : 0));
  return CheckNoPictures(data, "data.shapes");
}

absl::Status CheckAgrees(std::string_view field, uint64_t found,
                         int64_t expected) {
  if (found == 0 || found == static_cast<uint64_t>(expected)) {
    return absl::OkStatus();
  }
  return InvalidArgument("data.{}: found {}, expected {}, as the latents have",
                         field, found, expected);
}

// Of latents of several sizes.
absl::Status FillLatentSizes(const LatentFormat& format, Data& data) {
  RETURN_IF_ERROR(FillBuckets(data));
  PictureBuckets& buckets = *data.mutable_buckets();
  if (buckets.sizes_size() > 0 && SizesIn(buckets) != format.sizes) {
    return InvalidArgument(
        "data.buckets.sizes: found {} others, expected none, or the {} that "
        "the latents have",
        buckets.sizes_size(), format.sizes.size());
  }
  SetSizes(format.sizes, buckets);
  return FillBuckets(data);
}

// Of latents of several views, what they say.
absl::Status FillViews(const LatentFormat& format, Latents& latents) {
  RETURN_IF_ERROR(CheckAgrees("latents.views", latents.views(), format.views));
  RETURN_IF_ERROR(CheckAgrees("latents.extra_channels",
                              latents.extra_channels(), format.extra_channels));
  if (format.views == 1 && format.extra_channels == 0) return absl::OkStatus();
  if (!format.sizes.empty()) {
    return InvalidArgument(
        "data.latents.path: found {} views of {} sizes, expected one size",
        format.views, format.sizes.size());
  }
  latents.set_views(static_cast<uint32_t>(format.views));
  latents.set_extra_channels(static_cast<uint32_t>(format.extra_channels));
  return absl::OkStatus();
}

// Of latents that are pictures.
absl::Status FillPictures(const LatentFormat& format, Data& data) {
  RETURN_IF_ERROR(CheckAgrees("latents.tokens", data.latents().tokens(), 0));
  RETURN_IF_ERROR(CheckAgrees("channels", data.channels(), format.channels));
  data.set_channels(static_cast<uint32_t>(format.channels));
  RETURN_IF_ERROR(FillViews(format, *data.mutable_latents()));
  if (!format.sizes.empty()) return FillLatentSizes(format, data);
  if (data.has_buckets()) {
    return InvalidArgument(
        "data.buckets: found with latents of one size, expected of latents of "
        "several (trireme data --latents, --size or --side)");
  }
  if (format.height != format.views * format.width) {
    return InvalidArgument(
        "data.latents.path: found latents {}x{}, expected "
        "square ones",
        format.height / format.views, format.width);
  }
  RETURN_IF_ERROR(CheckAgrees("resolution", data.resolution(), format.width));
  data.set_resolution(static_cast<uint32_t>(format.width));
  return absl::OkStatus();
}

// Of latents that are sets of tokens.
absl::Status FillSets(const LatentFormat& format, Data& data) {
  Latents& latents = *data.mutable_latents();
  RETURN_IF_ERROR(
      CheckAgrees("latents.tokens", latents.tokens(), format.channels));
  RETURN_IF_ERROR(CheckAgrees("latents.token_channels",
                              latents.token_channels(), format.height));
  RETURN_IF_ERROR(CheckNoPictures(data, "latents that are sets of tokens"));
  latents.set_tokens(static_cast<uint32_t>(format.channels));
  latents.set_token_channels(static_cast<uint32_t>(format.height));
  RETURN_IF_ERROR(
      CheckAgrees("latents.lattice", latents.lattice(), format.lattice));
  if (format.lattice > 0) {
    latents.set_lattice(static_cast<uint32_t>(format.lattice));
  }
  return absl::OkStatus();
}

// What the latents say of themselves.
absl::Status FillLatents(Data& data) {
  ASSIGN_OR_RETURN(const std::string path, LocalPath(data.latents().path()));
  const auto cache = ReadLatentCache(path);
  RETURN_IF_ERROR(WithContext(cache.status(), "data.latents.path"));
  RETURN_IF_ERROR(cache->format.of_sets ? FillSets(cache->format, data)
                                        : FillPictures(cache->format, data));
  const LatentFormat& format = cache->format;
  Latents& latents = *data.mutable_latents();
  if (latents.autoencoder().empty()) {
    latents.set_autoencoder(cache->autoencoder);
  }
  if (!latents.has_scaling_factor()) latents.set_scaling_factor(format.scale);
  if (!latents.has_shift_factor()) latents.set_shift_factor(format.shift);
  RETURN_IF_ERROR(CheckRange("data.latents.scaling_factor",
                             latents.scaling_factor(), 1e-6, 1e6));
  return CheckRange("data.latents.shift_factor", latents.shift_factor(), -1e6,
                    1e6);
}

}  // namespace

absl::Status FillData(Data& data) {
  if (data.source_case() == Data::SOURCE_NOT_SET) {
    return InvalidArgument(
        "data: found no source, expected one of idx, image_folder, webdataset, "
        "shapes, latents");
  }
  if (!data.has_decode_threads()) data.set_decode_threads(1);
  RETURN_IF_ERROR(
      CheckRange("data.decode_threads", data.decode_threads(), 1, 256));
  if (data.has_shapes()) return FillShapes(data);
  if (data.has_latents()) return FillLatents(data);
  if (data.has_idx()) {
    if (data.idx().split().empty()) data.mutable_idx()->set_split("train");
    if (data.idx().split() != "train" && data.idx().split() != "test") {
      return InvalidArgument(
          "data.idx.split: found '{}', expected 'train' or 'test'",
          data.idx().split());
    }
  }
  if (data.has_webdataset()) {
    RETURN_IF_ERROR(CheckRange("data.webdataset.classes",
                               data.webdataset().classes(), 0,
                               kMaxWebDatasetClasses));
  }
  if (!data.has_channels()) data.set_channels(data.has_idx() ? 1 : 3);
  if (data.channels() != 1 && data.channels() != 3) {
    return InvalidArgument("data.channels: found {}, expected 1 or 3",
                           data.channels());
  }
  if (data.has_buckets()) return FillBuckets(data);
  return CheckRange("data.resolution", data.resolution(), 1, kMaxPictureSide);
}

std::vector<PictureSize> SizesOf(const Data& data) {
  return SizesIn(data.buckets());
}

MeshTokenFormat MeshFormatOf(const MeshSequences& sequences) {
  return {.bits = static_cast<int>(sequences.bits()),
          .block_bits = static_cast<int>(sequences.block_bits())};
}

LatentFormat LatentFormatOf(const Data& data) {
  if (!data.has_latents()) return {};
  const Latents& latents = data.latents();
  if (latents.tokens() > 0) {
    return {.channels = latents.tokens(),
            .height = latents.token_channels(),
            .width = 1,
            .scale = latents.scaling_factor(),
            .shift = latents.shift_factor(),
            .of_sets = true,
            .lattice = latents.lattice()};
  }
  const int64_t views = std::max<int64_t>(latents.views(), 1);
  LatentFormat format = {.channels = data.channels(),
                         .height = views * data.resolution(),
                         .width = data.resolution(),
                         .scale = latents.scaling_factor(),
                         .shift = latents.shift_factor(),
                         .views = views,
                         .extra_channels = latents.extra_channels(),
                         .sizes = SizesOf(data)};
  if (!format.sizes.empty()) {
    format.height = format.sizes.front().height;
    format.width = format.sizes.front().width;
  }
  return format;
}

DataFormat DataFormatOf(const Data& data, int64_t classes) {
  DataFormat format;
  format.channels = data.channels();
  format.resolution = data.resolution();
  if (data.has_buckets()) {
    // A model that is made square becomes one of each size.
    const PictureBuckets::Size& first = data.buckets().sizes(0);
    format.resolution = std::min(first.height(), first.width());
  }
  format.classes = classes;
  format.views = std::max<int64_t>(data.latents().views(), 1);
  format.tokens = data.latents().tokens();
  format.token_channels = data.latents().token_channels();
  format.voxel_resolution = data.latents().lattice();
  if (!data.has_shapes()) return format;
  const Shapes& shapes = data.shapes();
  if (shapes.has_sequences()) {
    format.mesh_format = MeshFormatOf(shapes.sequences());
    format.sequence_tokens = shapes.sequences().tokens();
    return format;
  }
  if (shapes.has_views()) {
    format.channels = kViewChannels;
    format.resolution = shapes.views().resolution();
    format.views = shapes.views().count();
    return format;
  }
  format.surfaces =
      shapes.grids() == 0 && !shapes.has_volume() && !shapes.has_voxels();
  if (shapes.has_volume()) {
    const VolumeShape volume = VolumeShapeOf(shapes);
    format.tokens = volume.tokens();
    format.token_channels = volume.token_channels();
    format.lattice = volume.lattice();
  } else if (shapes.has_voxels()) {
    const VoxelShape voxels = VoxelShapeOf(shapes);
    format.tokens = voxels.most_tokens;
    format.token_channels = voxels.token_channels();
    format.voxel_resolution = voxels.lattice();
    format.voxel_limit = voxels.limit();
    format.most_coarser_voxels = voxels.most_coarser;
  } else if (shapes.grids() > 0) {
    const int64_t k = shapes.resolution();
    format.tokens = shapes.grids();
    format.token_channels = 4 + k * k * k;
  }
  return format;
}

VolumeShape VolumeShapeOf(const Shapes& shapes) {
  return {.cells = static_cast<int>(shapes.volume().cells()),
          .patch = std::max(static_cast<int>(shapes.volume().patch()), 1),
          .overlap = static_cast<int>(shapes.volume().overlap()),
          .occupied_of = static_cast<int>(shapes.volume().occupied_of())};
}

VoxelShape VoxelShapeOf(const Shapes& shapes) {
  return {.cells = static_cast<int>(shapes.voxels().resolution()),
          .patch = std::max(static_cast<int>(shapes.voxels().patch()), 1),
          .whole = std::max(static_cast<int>(shapes.voxels().whole()), 1),
          .most_tokens = shapes.voxels().tokens(),
          .most_coarser = {shapes.voxels().coarser_tokens().begin(),
                           shapes.voxels().coarser_tokens().end()}};
}

}  // namespace trireme
