#include "models/data/shape_dataset.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "models/shape/mosaic_tokens.h"
#include "models/shape/occupancy.h"
#include "models/shape/shape_cache.h"
#include "models/shape/view_channels.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

std::vector<float> Coordinates(std::span<const Vector3f> points) {
  std::vector<float> values;
  for (const Vector3f& point : points) {
    values.insert(values.end(), {point.x, point.y, point.z});
  }
  return values;
}

std::vector<float> WithDistances(std::span<const Vector3f> points,
                                 std::span<const float> distances) {
  std::vector<float> values;
  for (size_t i = 0; i < points.size(); ++i) {
    values.insert(values.end(),
                  {points[i].x, points[i].y, points[i].z, distances[i]});
  }
  return values;
}

class ShapeDataset final : public Dataset {
 public:
  ShapeDataset(ShapeCache cache, const ShapeDatasetOptions& options)
      : cache_(std::move(cache)),
        with_mosaics_(options.grids > 0),
        volume_(options.volume),
        voxels_(options.voxels),
        with_views_(options.views > 0),
        shapes_(cache_.size()) {
    std::iota(shapes_.begin(), shapes_.end(), 0);
    FindClasses();
  }

  struct LeftOut {
    int64_t larger = 0;
    int64_t empty = 0;
    // Voxels of the smallest shape that has any, and of the largest.
    int64_t least = std::numeric_limits<int64_t>::max();
    int64_t most = 0;
  };
  // Samples are meshes from now on, but for those of longer sequences, and of
  // none: faces whose corners share a cell of the grid are none.
  LeftOut KeepSequences(const MeshSequenceOptions& sequences) {
    sequences_ = sequences;
    LeftOut left_out;
    std::erase_if(shapes_, [&](int64_t shape) {
      const MeshTokenFormat& format = sequences_->format;
      const QuantizedMesh mesh =
          Quantize(cache_.Read(shape).mesh(), format.bits);
      if (mesh.faces.empty()) {
        ++left_out.empty;
        return true;
      }
      const bool larger =
          static_cast<int64_t>(EncodeMesh(format, mesh).size()) >
          sequences_->most_tokens;
      left_out.larger += larger;
      return larger;
    });
    FindClasses();
    return left_out;
  }

  // Leaves out the shapes of more voxels than a sample has, and of none.
  LeftOut KeepVoxels() {
    enum Verdict : uint8_t { kFits, kLarger, kEmpty };
    std::vector<Verdict> verdicts(shapes_.size());
    std::vector<int64_t> sizes(shapes_.size());
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < shapes_.size(); ++i) {
      const VoxelSet set = VoxelTokens(cache_.Read(shapes_[i]).volume, voxels_);
      sizes[i] = set.size();
      verdicts[i] = set.size() == 0      ? kEmpty
                    : Fits(set, voxels_) ? kFits
                                         : kLarger;
    }
    LeftOut left_out;
    std::vector<int64_t> kept;
    for (size_t i = 0; i < shapes_.size(); ++i) {
      left_out.larger += verdicts[i] == kLarger;
      left_out.empty += verdicts[i] == kEmpty;
      left_out.most = std::max(left_out.most, sizes[i]);
      if (sizes[i] > 0) left_out.least = std::min(left_out.least, sizes[i]);
      if (verdicts[i] == kFits) kept.push_back(shapes_[i]);
    }
    shapes_ = std::move(kept);
    FindClasses();
    return left_out;
  }

  int64_t size() const override { return static_cast<int64_t>(shapes_.size()); }
  int64_t num_classes() const override {
    return static_cast<int64_t>(classes_.size());
  }
  std::string class_name(int64_t class_id) const override {
    return cache_.class_names().at(classes_.at(class_id));
  }

  uint64_t IndexHash() const override {
    std::string index;
    for (int64_t i = 0; i < size(); ++i) {
      index += cache_.record(shapes_[i]).name + "\n";
    }
    return StableHash(index);
  }

  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    const ShapeRecord& record = cache_.record(shapes_[index]);
    const size_t classes = cache_.class_names().size();
    if (classes > 0 && record.class_id < 0) {
      return DataLoss("{}: no class, expected one of {}", record.name, classes);
    }
    Sample sample;
    sample.key = record.name;
    sample.class_id = classes > 0 ? ClassOf(record) : -1;
    const CachedShape shape = cache_.Read(shapes_[index]);
    if (parts.caption) sample.caption = record.caption;
    if (parts.image && with_views_) {
      RETURN_IF_ERROR(WithContext(ReadViews(shape.views, sample), record.name));
    } else if (parts.image) {
      sample.image = {.width = cache_.view_side(),
                      .height = cache_.view_side(),
                      .channels = 3,
                      .pixels = {shape.view.begin(), shape.view.end()}};
    }
    if (parts.surface_points) {
      sample.surface_points = Coordinates(shape.surface_points);
    }
    if (parts.distances) {
      sample.surface_normals = Coordinates(shape.surface_normals);
      sample.near_distances =
          WithDistances(shape.near_points, shape.near_distances);
      sample.uniform_distances =
          WithDistances(shape.uniform_points, shape.uniform_distances);
    }
    if (parts.token_set && with_mosaics_) {
      const auto mosaic =
          MosaicFromTokens(shape.mosaic, cache_.mosaic_resolution());
      if (!mosaic.ok()) return WithContext(mosaic.status(), record.name);
      sample.token_set =
          StandardizeMosaic(shape.mosaic, cache_.mosaic_resolution());
    }
    if (parts.token_set && volume_.cells > 0) {
      sample.token_set = VolumeTokens(volume_.occupied_of > 0
                                          ? Occupancy(shape.volume, volume_)
                                          : shape.volume,
                                      volume_);
    }
    if (voxels_.cells > 0 && (parts.token_set || parts.voxels)) {
      VoxelSet set = VoxelTokens(shape.volume, voxels_);
      sample.voxels = std::move(set.voxels);
      sample.voxel_kinds = std::move(set.kinds);
      if (parts.token_set) sample.token_set = std::move(set.features);
    }
    if (parts.mesh_tokens && sequences_.has_value()) {
      sample.mesh_tokens = TokensOf(shape);
    }
    // A fit that went wrong, or a file that was damaged since.
    for (const auto* values :
         {&sample.token_set, &sample.surface_points, &sample.surface_normals,
          &sample.near_distances, &sample.uniform_distances}) {
      if (!std::all_of(values->begin(), values->end(),
                       [](float value) { return std::isfinite(value); })) {
        return DataLoss(
            "{}: found values that are not finite, expected numbers",
            record.name);
      }
    }
    return sample;
  }

 private:
  // A class of which no sample is left is none: nothing would be learnt of it,
  // and it would be drawn.
  void FindClasses() {
    std::set<int64_t> found;
    for (const int64_t shape : shapes_) {
      const int64_t class_id = cache_.record(shape).class_id;
      if (class_id >= 0) found.insert(class_id);
    }
    classes_.assign(found.begin(), found.end());
  }

  int ClassOf(const ShapeRecord& record) const {
    const auto place =
        std::lower_bound(classes_.begin(), classes_.end(), record.class_id);
    return static_cast<int>(place - classes_.begin());
  }

  absl::Status ReadViews(const ShapeViews& views, Sample& sample) const {
    const auto finite = [](float value) { return std::isfinite(value); };
    const bool good =
        std::all_of(views.depths.begin(), views.depths.end(), finite) &&
        std::all_of(views.cameras.begin(), views.cameras.end(),
                    [&](const CameraPlace& camera) {
                      return finite(camera.azimuth) && finite(camera.elevation);
                    });
    if (!good) return DataLoss("a view that is not finite");
    const int side = cache_.view_resolution();
    sample.views = {.cameras = {views.cameras.begin(), views.cameras.end()},
                    .side = side,
                    .channels = ChannelsOf(views, side)};
    return absl::OkStatus();
  }

  std::vector<int32_t> TokensOf(const CachedShape& shape) const {
    const MeshTokenFormat& format = sequences_->format;
    return EncodeMesh(format, Quantize(shape.mesh(), format.bits));
  }

  ShapeCache cache_;
  bool with_mosaics_;
  VolumeShape volume_;
  VoxelShape voxels_;
  bool with_views_;
  std::optional<MeshSequenceOptions> sequences_;
  // The cache's that are samples.
  std::vector<int64_t> shapes_;
  // The cache's that samples are of, in its order.
  std::vector<int64_t> classes_;
};

absl::StatusOr<std::unique_ptr<Dataset>> OpenSequences(
    ShapeCache cache, const ShapeDatasetOptions& options) {
  if (cache.mesh_faces() == 0) {
    return InvalidArgument(
        "data.shapes.path: found {}, a cache without meshes, expected one with "
        "(trireme data --shapes --mesh_faces N)",
        options.folder);
  }
  const int64_t all = cache.size();
  auto dataset = std::make_unique<ShapeDataset>(std::move(cache), options);
  const auto left_out = dataset->KeepSequences(*options.sequences);
  const int64_t longer = left_out.larger, without_faces = left_out.empty;
  if (without_faces == all) {
    return InvalidArgument(
        "data.shapes.sequences.bits: found {}, expected as many as leave one "
        "of the {} meshes of {} a face: corners of a face that share a cell "
        "make it none",
        options.sequences->format.bits, all, options.folder);
  }
  if (longer + without_faces == all) {
    return InvalidArgument(
        "data.shapes.sequences.tokens: found {}, expected as many as one of "
        "the {} meshes of {} takes",
        options.sequences->most_tokens, all, options.folder);
  }
  if (longer > 0) {
    LOG(WARNING) << options.folder << ": " << longer << " of " << all
                 << " meshes take more than " << options.sequences->most_tokens
                 << " tokens and are left out (data.shapes.sequences.tokens)";
  }
  if (without_faces > 0) {
    LOG(WARNING) << options.folder << ": " << without_faces << " of " << all
                 << " meshes have no face whose corners lie in three cells and "
                    "are left out (data.shapes.sequences.bits)";
  }
  return dataset;
}

absl::Status CheckMosaics(const ShapeCache& cache,
                          const ShapeDatasetOptions& options) {
  if (cache.mosaic_grids() == 0) {
    return InvalidArgument(
        "data.shapes.path: found {}, a cache without mosaics, expected one "
        "with (trireme data --shapes --mosaic_grids {})",
        options.folder, options.grids);
  }
  if (cache.mosaic_grids() != options.grids) {
    return InvalidArgument(
        "data.shapes.grids: found {}, expected {}, as {} has them",
        options.grids, cache.mosaic_grids(), options.folder);
  }
  if (cache.mosaic_resolution() != options.resolution) {
    return InvalidArgument(
        "data.shapes.resolution: found {}, expected {}, as {} has it",
        options.resolution, cache.mosaic_resolution(), options.folder);
  }
  return absl::OkStatus();
}

absl::Status CheckVolumes(const ShapeCache& cache, const std::string& folder,
                          std::string_view field, int cells) {
  if (cache.volume_cells() == 0) {
    return InvalidArgument(
        "data.shapes.path: found {}, a cache without volumes, expected one "
        "with (trireme data --shapes --volume_cells {})",
        folder, cells);
  }
  if (cache.volume_cells() != cells) {
    return InvalidArgument(
        "data.shapes.{}: found {}, expected {}, as {} has them", field, cells,
        cache.volume_cells(), folder);
  }
  return absl::OkStatus();
}

absl::Status CheckViews(const ShapeCache& cache,
                        const ShapeDatasetOptions& options) {
  if (cache.views() == 0) {
    return InvalidArgument(
        "data.shapes.path: found {}, a cache without views, expected one with "
        "(trireme data --shapes --views {} --view_resolution {})",
        options.folder, options.views, options.view_resolution);
  }
  for (const auto& [field, found, expected] :
       {std::tuple("count", options.views, cache.views()),
        std::tuple("resolution", options.view_resolution,
                   cache.view_resolution())}) {
    if (found == expected) continue;
    return InvalidArgument(
        "data.shapes.views.{}: found {}, expected {}, as {} has them", field,
        found, expected, options.folder);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenVoxels(
    ShapeCache cache, const ShapeDatasetOptions& options) {
  RETURN_IF_ERROR(CheckVolumes(cache, options.folder, "voxels.resolution",
                               options.voxels.cells));
  const int64_t all = cache.size();
  auto dataset = std::make_unique<ShapeDataset>(std::move(cache), options);
  const ShapeDataset::LeftOut left_out = dataset->KeepVoxels();
  if (dataset->size() == 0 && left_out.larger == 0) {
    return InvalidArgument(
        "data.shapes.path: found {}, none of whose {} shapes has voxels, "
        "expected one that has",
        options.folder, all);
  }
  if (dataset->size() == 0 && left_out.least <= options.voxels.most_tokens) {
    return InvalidArgument(
        "data.shapes.voxels.coarser_tokens: found fewer than each of the {} "
        "shapes of {} needs, expected more",
        all, options.folder);
  }
  if (dataset->size() == 0) {
    return InvalidArgument(
        "data.shapes.voxels.tokens: found {}, expected at least the {} that "
        "the smallest of the {} shapes of {} has (the largest has {})",
        options.voxels.most_tokens, left_out.least, all, options.folder,
        left_out.most);
  }
  if (left_out.larger > 0) {
    LOG(WARNING) << options.folder << ": " << left_out.larger << " of " << all
                 << " shapes have more than " << options.voxels.most_tokens
                 << " voxels (the largest " << left_out.most << ")"
                 << (options.voxels.most_coarser.empty()
                         ? ""
                         : ", or more coarser ones than the job says,")
                 << " and are left out (data.shapes.voxels.tokens)";
  }
  if (left_out.empty > 0) {
    LOG(WARNING) << options.folder << ": " << left_out.empty << " of " << all
                 << " shapes have no voxels and are left out";
  }
  return dataset;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenShapeDataset(
    const ShapeDatasetOptions& options) {
  ASSIGN_OR_RETURN(ShapeCache cache, ShapeCache::Open(options.folder));
  if (options.sequences.has_value()) {
    return OpenSequences(std::move(cache), options);
  }
  if (options.voxels.cells > 0) {
    return OpenVoxels(std::move(cache), options);
  }
  if (options.views > 0) RETURN_IF_ERROR(CheckViews(cache, options));
  if (options.grids > 0) RETURN_IF_ERROR(CheckMosaics(cache, options));
  if (options.volume.cells > 0) {
    const int occupied_of = options.volume.occupied_of;
    RETURN_IF_ERROR(
        CheckVolumes(cache, options.folder,
                     occupied_of > 0 ? "volume.occupied_of" : "volume.cells",
                     occupied_of > 0 ? occupied_of : options.volume.cells));
  }
  return std::make_unique<ShapeDataset>(std::move(cache), options);
}

}  // namespace trireme
