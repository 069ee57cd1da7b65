// A cache of shapes (docs/formats/shape_cache.md) as a data set: a sample is a
// shape's mosaic, its volume, its voxels, its mesh as a sequence of tokens, its
// views, or the points about its surface, its class, its caption and a picture
// of it.

#ifndef TRIREME_MODELS_DATA_SHAPE_DATASET_H_
#define TRIREME_MODELS_DATA_SHAPE_DATASET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/mesh_tokens/mesh_tokens.h"
#include "models/shape/volume_tokens.h"
#include "models/shape/voxel_tokens.h"

namespace trireme {

struct MeshSequenceOptions {
  MeshTokenFormat format;
  // Shapes whose sequences are longer, or whose faces are none on the grid, are
  // none of the samples.
  int64_t most_tokens = 0;
};

struct ShapeDatasetOptions {
  std::string folder;
  // What its mosaics must have: grids, and values along a side of each; 0
  // grids: samples are without.
  int64_t grids = 0;
  int64_t resolution = 0;
  // In place of them its volumes, whose cells they must be; 0 cells: samples
  // are without.
  VolumeShape volume;
  // Or those of its volumes' cubes that the surface passes; 0 cells: samples
  // are without. Shapes that do not fit (VoxelShape), or have none, are none of
  // the samples.
  VoxelShape voxels;
  // Or its views, which must be as many of such a side; 0 views: samples are
  // without.
  int views = 0;
  int view_resolution = 0;
  // Of samples that are meshes.
  std::optional<MeshSequenceOptions> sequences;
};

// Warns of shapes that it leaves out; classes of which no shape is left are
// none of its classes. Errors: no whole cache there, damaged files, a cache
// without mosaics, volumes or meshes, or with others (they name the job's
// fields, as data.shapes.grids), no shape left.
absl::StatusOr<std::unique_ptr<Dataset>> OpenShapeDataset(
    const ShapeDatasetOptions& options);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SHAPE_DATASET_H_
