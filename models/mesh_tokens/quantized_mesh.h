// Meshes whose vertices lie on a grid, in one order that depends on nothing but
// the surface: what sequences of tokens are made of.
//
// A vertex is the code of its cell: (y << 2·bits | z << bits | x), each
// coordinate of `bits`, so that codes go from the bottom to the top.

#ifndef TRIREME_MODELS_MESH_TOKENS_QUANTIZED_MESH_H_
#define TRIREME_MODELS_MESH_TOKENS_QUANTIZED_MESH_H_

#include <array>
#include <cstdint>
#include <vector>

#include "models/shape/mesh.h"

namespace trireme {

// Codes of a face's vertices, counter-clockwise seen from outside.
using CodedFace = std::array<int32_t, 3>;

struct QuantizedMesh {
  // Of a coordinate; at most 10, so that codes are positive.
  int bits = 7;
  // Each from its lowest vertex on, in order, none twice, three vertices each.
  std::vector<CodedFace> faces;

  bool operator==(const QuantizedMesh&) const = default;
};

// Puts faces into that order; returns how many were none or were there already.
int64_t Canonicalize(QuantizedMesh& mesh);

// Of a mesh within [−1, 1]³: a coordinate c is in cell ⌊(c + 1)/2 · 2^bits⌋.
// Vertices of one cell become one, and faces that shrink to nothing go.
QuantizedMesh Quantize(const Mesh& mesh, int bits);

// With each vertex at the middle of its cell: Quantize gives the same again.
Mesh ToMesh(const QuantizedMesh& mesh);

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_QUANTIZED_MESH_H_
