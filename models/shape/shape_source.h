// Folders and archives of meshes: what is in them, and under which licence.

#ifndef TRIREME_MODELS_SHAPE_SHAPE_SOURCE_H_
#define TRIREME_MODELS_SHAPE_SHAPE_SOURCE_H_

#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/mesh.h"
#include "models/shape/mesh_reader.h"

namespace trireme {

struct ShapeEntry {
  // Names the shape within its source: "chairs/stool.obj", or
  // "Scopia.sh3f:scopia/bed1/bed1.obj".
  std::string name;
  std::string class_name;  // empty: none
  std::string caption;
  // Where the mesh is: a file, or a file of an archive. So the icon, if any.
  std::string file;
  std::string member;
  std::string icon;
};

struct ShapeSource {
  std::vector<ShapeEntry> shapes;
  // By archive (or "folder"): what the files in it that say so allow, up to
  // 1 MiB.
  std::map<std::string, std::string> licenses;
  // By archive: why it cannot be read.
  std::map<std::string, std::string> refused_archives;
};

// `path` is a mesh, a zip archive (.zip, .sh3f) or a folder, searched with all
// below it, in order of names, within an archive in its own order; what begins
// with a dot is passed over. A shape's class is the first subfolder on its way;
// in archives of Sweet Home 3D's furniture its category, and its caption is its
// name. Archives within archives are not opened. Errors: no such file, no mesh;
// Unavailable: a folder that cannot be listed.
absl::StatusOr<ShapeSource> FindShapes(const std::string& path);

// Keeps the shapes that are of one of `kinds`, which becomes their class: a
// word of the caption (of the name, where there is no caption) ends in it, so
// that an "Armchair" is a chair and a "Tablet" is no table. The first one
// counts. Errors: no shape is left.
absl::Status KeepKinds(std::span<const std::string> kinds, ShapeSource& source);

// As the file has it (ParseMesh). Errors begin with the entry's name, and are
// the same wherever the source lies.
absl::StatusOr<Mesh> ReadShape(const ShapeEntry& entry,
                               const MeshReadLimits& limits = {});

// The icon's file: a picture's bytes, or none.
absl::StatusOr<std::string> ReadIcon(const ShapeEntry& entry);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPE_SOURCE_H_
