// A shape as its signed distance on a regular grid of the cube [−1, 1]³, and
// such a grid as a model learns it: cut into cubes of patch³ cells, each of
// which is a token that lies where it lies. Shapes are thickened by half a
// cell, h = 1/cells, so that no plate falls between two layers of centres; for
// rods, which pass between four, or between eight, they are made no thinner
// than LeastThickness before. Distances are cut off at three cells, beyond
// which only their sign says something, and brought to about mean 0 and
// deviation 1:
//
//   (clamp((d − h) / (6·h), −1, 1) − 0.7) / 0.5
//
// since most of the cube is outside. Cells and tokens are in the order of their
// places, x fastest.
//
// Tokens may overlap: each then also has the layers of cells about its cube
// (outside the grid, those of the nearest cell), and a cell that several tokens
// have is their weighted mean when they come back to a volume. What tokens make
// each by itself fits one another so.

#ifndef TRIREME_MODELS_SHAPE_VOLUME_TOKENS_H_
#define TRIREME_MODELS_SHAPE_VOLUME_TOKENS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/vector3.h"

namespace trireme {

struct VolumeShape {
  int cells = 0;  // a side of the cube; a multiple of patch
  int patch = 1;
  // Layers of cells about its cube that a token has as well.
  int overlap = 0;
  // More than 0: cells are occupied or not, by distances on a grid of so many a
  // side, a multiple of `cells` (occupancy.h).
  int occupied_of = 0;

  // A side of a token, in cells.
  int64_t extent() const { return patch + 2 * int64_t{overlap}; }
  // A side of the cube.
  int64_t lattice() const { return cells / patch; }
  int64_t tokens() const { return lattice() * lattice() * lattice(); }
  int64_t token_channels() const { return extent() * extent() * extent(); }
  // Of all cells; of all tokens.
  int64_t values() const { return int64_t{cells} * cells * cells; }
  int64_t token_values() const { return tokens() * token_channels(); }
};

// How thick a shape has to be so that nothing of it falls between the cells'
// centres once half a cell is added on each side: then it reaches √3/2 cells
// about its middle, the farthest that a point is from the nearest centre.
double LeastThickness(int cells);

// The centres of the cells.
std::vector<Vector3f> VolumePoints(int cells);

// [tokens, token_channels] of the distances at the cells' centres.
std::vector<float> VolumeTokens(std::span<const float> distances,
                                const VolumeShape& shape);

// Distances to the thickened shape, cut off, between the cells' centres.
class VolumeField {
 public:
  // Of tokens as VolumeTokens gives them, or as a model makes them. Errors:
  // values that are not finite or whose number does not fit.
  static absl::StatusOr<VolumeField> FromTokens(std::span<const float> tokens,
                                                const VolumeShape& shape);
  // Of distances at the cells' centres, of `cells` a side.
  static VolumeField FromDistances(int cells, std::vector<float> distances);

  // Trilinear; beyond the outermost centres as there.
  void Distances(std::span<const Vector3f> points,
                 std::span<float> values) const;

 private:
  VolumeField(int cells, std::vector<float> distances)
      : cells_(cells), distances_(std::move(distances)) {}

  int cells_;
  std::vector<float> distances_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VOLUME_TOKENS_H_
