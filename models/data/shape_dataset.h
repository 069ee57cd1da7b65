// A cache of shapes (docs/formats/shape_cache.md) as a data set: a sample is a
// shape's mosaic, its volume, or the points about its surface, its class, its
// caption and a picture of it.

#ifndef TRIREME_MODELS_DATA_SHAPE_DATASET_H_
#define TRIREME_MODELS_DATA_SHAPE_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/shape/volume_tokens.h"

namespace trireme {

struct ShapeDatasetOptions {
  std::string folder;
  // What its mosaics must have: grids, and values along a side of each; 0
  // grids: samples are without.
  int64_t grids = 0;
  int64_t resolution = 0;
  // In place of them its volumes, whose cells they must be; 0 cells: samples
  // are without.
  VolumeShape volume;
};

// Errors: no whole cache there, damaged files, a cache without mosaics or
// volumes, or with others (they name the job's fields, as data.shapes.grids).
absl::StatusOr<std::unique_ptr<Dataset>> OpenShapeDataset(
    const ShapeDatasetOptions& options);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SHAPE_DATASET_H_
