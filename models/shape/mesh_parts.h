// What of a drawn shape hangs together: parts in the air are left out.

#ifndef TRIREME_MODELS_SHAPE_MESH_PARTS_H_
#define TRIREME_MODELS_SHAPE_MESH_PARTS_H_

#include "models/shape/mesh.h"

namespace trireme {

// Which of a drawn shape's parts are kept.
enum class KeptParts {
  kAll,
  // That of the largest surface, those that touch it, or touch one that does.
  kTouching,
  // That of the largest surface alone.
  kLargest,
};

// What lies nearer to each other touches: a cell of a volume of 40 a side of
// the cube [−1, 1]³. Parts of a drawn shape that belong together often end a
// cell from each other; what floats is farther away.
inline constexpr double kTouchingGap = 0.05;

// The parts that are kept, with their vertices. Parts are of triangles that
// share vertices; with a gap, all that have a vertex within it of another's are
// one. The vertices are finite.
Mesh KeepParts(const Mesh& mesh, KeptParts kept, double gap = kTouchingGap);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MESH_PARTS_H_
