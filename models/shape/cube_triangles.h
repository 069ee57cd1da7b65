// How the surface runs through one cell of marching cubes.

#ifndef TRIREME_MODELS_SHAPE_CUBE_TRIANGLES_H_
#define TRIREME_MODELS_SHAPE_CUBE_TRIANGLES_H_

#include <array>
#include <cstdint>
#include <vector>

namespace trireme {

// Corner c of a cell lies at (c & 1, c >> 1 & 1, c >> 2 & 1). An edge goes from
// the corner `from` in the direction of `axis`.
struct CubeEdge {
  int from;
  int axis;
};

// All twelve.
const std::array<CubeEdge, 12>& CubeEdges();

// For each set of negative corners (bit c is corner c): the triangles, each
// three edges on which its vertices lie, counter-clockwise seen from the
// positive side.
using CubeTriangles = std::array<std::vector<std::array<int8_t, 3>>, 256>;

CubeTriangles MakeCubeTriangles();

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_CUBE_TRIANGLES_H_
