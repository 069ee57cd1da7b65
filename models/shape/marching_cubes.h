// Marching cubes (Lorensen and Cline, 1987): the surface on which a function of
// points is 0, as a triangle mesh.
//
// The mesh is closed, manifold and faces towards positive values, whatever the
// function: each cell's triangles follow from one rule for faces, which
// neighbours share (negative corners of a face that touch only across its
// diagonal are kept apart), so that there is no table to be wrong. What is
// negative at the cube's border is cut off there and closed.

#ifndef TRIREME_MODELS_SHAPE_MARCHING_CUBES_H_
#define TRIREME_MODELS_SHAPE_MARCHING_CUBES_H_

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/shape/mesh.h"

namespace trireme {

// values[i] = f(points[i]), negative inside.
using PointFunction =
    std::function<absl::Status(std::span<const Vector3f>, std::span<float>)>;

struct MarchingCubesOptions {
  // The cube is [-half_extent, half_extent]³.
  double half_extent = 1;
  // First the whole cube with so many cells a side, then each cell that may
  // hold the surface is halved, `refinements` times: cells << refinements a
  // side at the end, at most 2^14.
  int cells = 32;
  int refinements = 2;
  // A cell may hold the surface where its corners' values differ in sign or one
  // is within `band` of its diagonals from 0. 1 misses nothing of a distance.
  // Of any function, the surface is followed from where it was found.
  double band = 1;
  // How many points the function is asked for at once, and in all: what memory
  // goes with (some 50 bytes a point).
  int64_t batch = int64_t{1} << 16;
  int64_t max_points = int64_t{1} << 26;
};

// A mesh without triangles where the function has one sign. Errors: the
// function's own, a value that is not finite, more points than allowed.
absl::StatusOr<Mesh> MarchingCubes(const PointFunction& function,
                                   const MarchingCubesOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MARCHING_CUBES_H_
