// Meshes as sequences of tokens, and back.
//
// Faces that meet in a vertex share it: a fan is its centre, then the vertices
// around it, of which each two in a row are a face with the centre (the patches
// of Weng et al., "Scaling mesh generation via compressive tokenization",
// section 3.3, and the shells of Wang et al., "Nautilus: locality-aware
// autoencoder for scalable mesh generation", section 3.2). The next fan is that
// of the lowest face that is left, about its vertex of most faces that are
// left.
//
// A vertex is the block of the grid that it lies in and its offset within the
// block (section 3.2 of the former); the block is left out where it is that of
// the vertex before. Blocks of centres are tokens of their own, which begin a
// fan:
//
//   sequence = fan* end
//   fan      = begin(block) offset  vertex vertex vertex*
//   vertex   = [block] offset
//
// A triangle soup takes 9 tokens a face, three coordinates of three vertices;
// a closed surface here 2 to 3.5, the fewer the larger blocks are.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_TOKENS_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_TOKENS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "models/mesh_tokens/quantized_mesh.h"

namespace trireme {

// Tokens, from 0: offsets, blocks, blocks that begin a fan, the end.
struct MeshTokenFormat {
  int bits = 7;        // of a coordinate
  int block_bits = 3;  // of those, of its block; less than bits

  int32_t offsets() const { return 1 << (3 * (bits - block_bits)); }
  int32_t blocks() const { return 1 << (3 * block_bits); }
  int32_t first_block() const { return offsets(); }
  int32_t first_begin() const { return offsets() + blocks(); }
  int32_t end() const { return offsets() + 2 * blocks(); }
  int64_t vocabulary() const { return end() + 1; }
};

// The shortest sequence with a face.
inline constexpr int64_t kShortestMeshSequence = 5;

// A function of the surface alone. `mesh` is canonical, of the format's bits.
std::vector<int32_t> EncodeMesh(const MeshTokenFormat& format,
                                const QuantizedMesh& mesh);

struct DecodedMesh {
  QuantizedMesh mesh;  // canonical; maybe without faces
  // Tokens that are none or stand where none of them may, and those of fans
  // without a face.
  int64_t dropped_tokens = 0;
  // Faces without area, or there already.
  int64_t dropped_faces = 0;
  // Whether the end was among the tokens; what follows it is not looked at.
  bool ended = false;
};

// Of any tokens: what there is of fans in them. EncodeMesh's give its mesh, and
// nothing is dropped.
DecodedMesh DecodeMesh(const MeshTokenFormat& format,
                       std::span<const int32_t> tokens);

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_TOKENS_H_
