// Which cells of a coarse grid a shape's surface passes, as a volume that a
// dense model learns and draws (Wu et al., "Direct3D-S2", section 3.4): where
// the tokens of a model of sparse voxels, or of their latents, lie.

#ifndef TRIREME_MODELS_SHAPE_OCCUPANCY_H_
#define TRIREME_MODELS_SHAPE_OCCUPANCY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/volume_tokens.h"

namespace trireme {

// Of distances at the centres of shape.occupied_of³ cells what VolumeTokens
// takes of shape.cells³ of them: as far inside as a distance can be where
// VoxelTokens has a cube, and as far outside elsewhere.
std::vector<float> Occupancy(std::span<const float> distances,
                             const VolumeShape& shape);

// The occupied cells [n, 3] (x, y, z) of tokens as a model makes them, in the
// order of runtime/core/voxel_order.h: those that lie inside, of more than
// `most` the surest, of none the one that is nearest to it. Errors: those of
// VolumeField::FromTokens.
struct OccupiedCells {
  std::vector<int32_t> voxels;
  int64_t left_out = 0;
};
absl::StatusOr<OccupiedCells> OccupiedCellsOf(std::span<const float> tokens,
                                              const VolumeShape& shape,
                                              int64_t most);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_OCCUPANCY_H_
