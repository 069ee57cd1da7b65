// Where a surface that is given by its signed distances on a grid has edges.

#ifndef TRIREME_MODELS_SHAPE_SHARP_EDGES_H_
#define TRIREME_MODELS_SHAPE_SHARP_EDGES_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// Which of `cells` (numbers of a grid of n a side, x fastest) lie at an edge of
// the surface where distances[n³] of the cube [−1, 1]³ are `level`: to one of
// the 26 cells about it on the same side of the surface, the direction of the
// distance (by differences over two cells) turns by 41° to 150°. Less is a
// curve, of more than 2.4 cells of radius; more the middle of a thin wall.
// Directions of gradients shorter than half a distance's are not compared.
std::vector<bool> AtSharpEdges(std::span<const float> distances, int64_t n,
                               float level, std::span<const int64_t> cells);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHARP_EDGES_H_
