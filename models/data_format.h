// What the data give a model.

#ifndef TRIREME_MODELS_DATA_FORMAT_H_
#define TRIREME_MODELS_DATA_FORMAT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "models/mesh_tokens/mesh_tokens.h"

namespace trireme {

struct DataFormat {
  int64_t channels = 1;
  int64_t resolution = 0;  // side of the square pictures
  int64_t views = 1;       // pictures of a sample, one under another
  int64_t classes = 0;     // 0: samples have none
  // Where samples are no pictures but sets of tokens: how many each, and the
  // channels of a token.
  int64_t tokens = 0;
  int64_t token_channels = 0;
  // More than 0: tokens are the cubes of a cube with so many a side, x fastest.
  // 0: they have no places.
  int64_t lattice = 0;
  // More than 0: tokens are cells of a grid, at places of their own.
  int64_t voxel_resolution = 0;
  // Of those: the largest absolute value of a channel.
  double voxel_limit = 0;
  // Of those: the most cells of 2, 4, .. times the side that a sample's lie in,
  // where that is known.
  std::vector<int64_t> most_coarser_voxels;
  // Samples are shapes themselves: points on their surfaces and distances.
  bool surfaces = false;
  // Where they are meshes as sequences of tokens: of which, and how many at
  // most.
  std::optional<MeshTokenFormat> mesh_format;
  int64_t sequence_tokens = 0;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_FORMAT_H_
