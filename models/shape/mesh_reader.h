// Reads meshes from OBJ, PLY, STL, OFF and GLB files, through Assimp.
//
// The input is hostile, and Assimp does not hold against all of it: a child
// process does the parsing, with bounded memory and time and with no other
// file than the one given. Whatever becomes of it, the result is a mesh within
// the limits or an error.
//
// Any thread.

#ifndef TRIREME_MODELS_SHAPE_MESH_READER_H_
#define TRIREME_MODELS_SHAPE_MESH_READER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/shape/mesh.h"

namespace trireme {

struct MeshReadLimits {
  int64_t max_file_bytes = int64_t{256} << 20;
  int64_t max_vertices = int64_t{1} << 22;
  int64_t max_triangles = int64_t{1} << 22;
  // Of the child beyond what this process has already.
  int64_t memory_bytes = int64_t{2} << 30;
  double seconds = 60;
};

// True for obj, ply, stl, off and glb in any case, without the dot.
bool IsMeshEnding(std::string_view ending);

// A file's content; `format` is one of those endings. All of a scene in one
// mesh, by its nodes' transforms; polygons become triangles, points and lines
// are passed over. The mesh is as the file has it: RepairMesh comes next.
//
// Errors: Unimplemented (another format), ResourceExhausted (a limit),
// DataLoss (damaged, or fatal to the reader). The caller adds the file's name.
absl::StatusOr<Mesh> ParseMesh(std::string_view bytes, std::string_view format,
                               const MeshReadLimits& limits = {});

// The same with a file's name, which the errors begin with.
absl::StatusOr<Mesh> ReadMesh(const std::string& path,
                              const MeshReadLimits& limits = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MESH_READER_H_
