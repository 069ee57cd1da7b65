// A shape as a sparse set of voxels (Direct3D-S2, arXiv 2505.17412): of its
// signed distances on a regular grid of the cube [−1, 1]³ only the cubes of
// patch³ cells that its surface passes, each of which is a token with a place
// on a coarser grid of `lattice` cubes a side.
//
// Shapes are thickened by half a cell, h = 1/cells, as in volume_tokens.h. A
// cell is near the surface where one of the 26 about it lies on its other side;
// beyond the grid is outside. A cube is occupied where one of its cells is near
// the surface, so that the surface never runs between cells that are not there.
// A token has the distances of its cube's cells, cut off at three cells and
// brought to about mean 0 and deviation 1:
//
//   clamp((d − h) / (6·h), −1, 1) / deviation
//
// with deviation 0.5, or 0.25 of single cells, which lie nearer.
//
// Where `whole` is more than 1, cubes come in groups of whole³ of them, all of
// which are there where one is occupied: what makes tokens of coarser ones
// without knowing which are occupied makes all of a group.
//
// Tokens are in the order of runtime/core/voxel_order.h.

#ifndef TRIREME_MODELS_SHAPE_VOXEL_TOKENS_H_
#define TRIREME_MODELS_SHAPE_VOXEL_TOKENS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/volume_tokens.h"

namespace trireme {

struct VoxelShape {
  int cells = 0;  // a side of the grid of distances; a multiple of patch
  int patch = 1;
  int whole = 1;  // a divisor of lattice()
  int64_t most_tokens = 0;
  // The most of the cubes of 2, 4, .. times the side that a shape's tokens lie
  // in, as far as it is bounded.
  std::vector<int64_t> most_coarser;

  // A side of the grid of tokens.
  int64_t lattice() const { return cells / patch; }
  int64_t token_channels() const { return int64_t{patch} * patch * patch; }
  int64_t values() const { return int64_t{cells} * cells * cells; }
  // By which distances over three cells were divided.
  float deviation() const { return patch == 1 ? 0.25F : 0.5F; }
  // By how much shapes are thickened, and where distances are then cut off.
  float thickened() const { return 1.0F / static_cast<float>(cells); }
  float cut_off() const { return 6 * thickened(); }
  // The largest absolute value of a channel.
  float limit() const { return 1 / deviation(); }
};

struct VoxelSet {
  std::vector<int32_t> voxels;  // [n, 3]: x, y, z
  std::vector<int32_t> kinds;   // [n]: VoxelKind
  std::vector<float> features;  // [n, token_channels]

  int64_t size() const { return static_cast<int64_t>(voxels.size()) / 3; }
};

// Of distances at the cells' centres (VolumePoints). More than
// shape.most_tokens where the surface passes more; none of a shape without a
// surface.
VoxelSet VoxelTokens(std::span<const float> distances, const VoxelShape& shape);

// Whether a shape has no more tokens, and its tokens lie in no more coarser
// cubes, than `shape` says.
bool Fits(const VoxelSet& set, const VoxelShape& shape);

// Distances to the thickened shape, cut off at three cells: at occupied cubes
// those of the tokens, elsewhere the cut-off, positive outside. Cells that are
// not there and touch one another lie on one side of the surface: outside where
// they reach the grid's border, else on that of most cells of tokens next to
// them. `features` may have more rows than there are voxels, which are passed
// over. Errors: features that are not finite or too few, voxels that lie beyond
// the grid or twice in one place.
absl::StatusOr<VolumeField> VoxelField(std::span<const int32_t> voxels,
                                       std::span<const float> features,
                                       const VoxelShape& shape);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VOXEL_TOKENS_H_
