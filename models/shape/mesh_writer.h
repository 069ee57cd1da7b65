// Writes meshes as files that other programs open. Any thread.

#ifndef TRIREME_MODELS_SHAPE_MESH_WRITER_H_
#define TRIREME_MODELS_SHAPE_MESH_WRITER_H_

#include <string>

#include "absl/status/status.h"
#include "models/shape/mesh.h"

namespace trireme {

// Wavefront OBJ: text, positions to the last bit.
std::string EncodeObj(const Mesh& mesh);

// Stanford PLY, binary and little-endian.
std::string EncodePly(const Mesh& mesh);

// glTF 2.0 in its binary container: positions and indices of one mesh, which
// viewers shade flat.
std::string EncodeGlb(const Mesh& mesh);

// Whether the file is one that bytes of the above were written to.
bool IsOwnMesh(const std::string& path);

// The format is the name's ending: .obj, .ply or .glb. Written beside its name,
// synced and renamed. Errors: another ending.
absl::Status WriteMesh(const std::string& path, const Mesh& mesh);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MESH_WRITER_H_
