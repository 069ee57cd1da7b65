// Turns meshes into a cache of shapes, in shards, with an account of every mesh
// that is refused.

#ifndef TRIREME_MODELS_SHAPE_SHAPE_CACHE_WRITER_H_
#define TRIREME_MODELS_SHAPE_SHAPE_CACHE_WRITER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/image/image.h"
#include "models/shape/mesh.h"
#include "models/shape/mesh_reader.h"
#include "models/shape/mosaic_sdf.h"
#include "models/shape/shape_cache.h"
#include "models/shape/shape_source.h"

namespace trireme {

struct ShapeCacheOptions {
  std::string folder;
  // On the surface, and as many near it.
  int64_t points = 20480;
  int64_t uniform_points = 10240;
  int64_t shapes_per_shard = 32;
  uint64_t seed = 0;
  // Of open surfaces (OuterShell).
  int shell_cells = 128;
  int view_side = 96;
  // Of each shape's mosaic; 0 grids: none.
  MosaicFitOptions mosaic = {.grids = 0};
  // A side of each shape's volume, at most kMaxVolumeCells; 0: none.
  int volume_cells = 0;
  // Pictures of each shape from all around, and their side, at most
  // kMaxShapeViews and kMaxViewResolution; 0 views: none.
  int views = 0;
  int view_resolution = 64;
  // Keeps meshes of at most so many triangles, and refuses shapes of more; 0:
  // keeps none.
  int64_t mesh_faces = 0;
  MeshReadLimits limits;
};

// One shape of a cache: repaired, normalised to ±0.95, sampled.
struct PreparedShape {
  ShapeRecord record;
  std::vector<Vector3f> surface_points;
  std::vector<Vector3f> surface_normals;
  std::vector<Vector3f> near_points;
  std::vector<float> near_distances;
  std::vector<Vector3f> uniform_points;
  std::vector<float> uniform_distances;
  std::vector<float> mosaic;  // tokens
  std::vector<float> volume;
  Mesh mesh;  // where meshes are kept
  Image view;
  std::vector<CameraPlace> view_cameras;
  std::vector<uint8_t> view_pictures;
  std::vector<float> view_depths;
  std::string icon;
};

// The same for the same entry, seed and options, whatever else is prepared.
// Errors begin with the entry's name; their code says what kind it is
// (RefusalName).
absl::StatusOr<PreparedShape> PrepareShape(const ShapeEntry& entry,
                                           const ShapeCacheOptions& options);

struct RefusedShape {
  std::string name;
  std::string reason;  // RefusalName
  std::string message;
};

// "over a limit", "damaged", "no surface" …
std::string RefusalName(absl::StatusCode code);

struct ShapeCacheSummary {
  int64_t shapes = 0;
  std::map<std::string, int64_t> by_sign_rule;
  int64_t repaired_shapes = 0;
  int64_t repaired_triangles = 0;
  // Over the shapes with a mosaic: the mean of their errors, and the worst.
  double mosaic_error = 0;
  double worst_mosaic_error = 0;
  std::string worst_mosaic;
  std::vector<RefusedShape> refused;
  int64_t shards = 0;
  // Shards that other processes are writing: the last to end writes the index.
  int64_t elsewhere = 0;
};

// Any number of processes, on whichever hosts, may write one cache at once:
// each takes shards that are not there and that no other has taken. A shard is
// whole or not there, so that a cache goes on from what it has. Within a
// process shapes are prepared by OpenMP's threads; each takes up to
// limits.memory_bytes while it reads, and after that up to some KiB a triangle
// and, of open surfaces, 5 bytes a point of the shell's grid.
//
// Errors: a cache of other shapes or options (it names what differs), no shape
// left, files that cannot be written, a damaged shard; Unavailable and Internal
// where a shape fails for a reason that may pass (a file system that does not
// answer, no process to be had): its shard is not written then. `progress` is
// told how many of the shapes are done, by one thread at a time.
absl::StatusOr<ShapeCacheSummary> WriteShapeCache(
    const ShapeSource& source, const ShapeCacheOptions& options,
    const std::function<void(int64_t)>& progress = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPE_CACHE_WRITER_H_
