// A folder of shapes ready to train from: points on each surface and signed
// distances about it (docs/formats/shape_cache.md). Read-only; written by
// shape_cache_writer.h.

#ifndef TRIREME_MODELS_SHAPE_SHAPE_CACHE_H_
#define TRIREME_MODELS_SHAPE_SHAPE_CACHE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/camera.h"
#include "models/shape/mesh.h"
#include "models/shape/vector3.h"
#include "runtime/checkpoint/safetensors.h"

namespace trireme {

// The names of a shard's tensors, each [shapes, …] but for the icons.
namespace shape_tensors {
inline constexpr char kSurfacePoints[] = "surface_points";    // F32 [s, n, 3]
inline constexpr char kSurfaceNormals[] = "surface_normals";  // F32 [s, n, 3]
inline constexpr char kNearPoints[] = "near_points";          // F32 [s, n, 3]
inline constexpr char kNearDistances[] = "near_distances";    // F32 [s, n]
inline constexpr char kUniformPoints[] = "uniform_points";    // F32 [s, u, 3]
inline constexpr char kUniformDistances[] = "uniform_distances";  // F32 [s, u]
// F32 [s, grids, 4 + k³], where it was asked for (MosaicTokens).
inline constexpr char kMosaics[] = "mosaics";
// F32 [s, cells, cells, cells], where it was asked for (VolumePoints).
inline constexpr char kVolumes[] = "volumes";
inline constexpr char kViews[] = "views";  // U8 [s, side, side, 3]
// Where they were asked for, pictures of each shape from several cameras:
// U8 [s, v, side, side, 3], F32 [s, v, side, side] (DepthView) and F32 [s, v,
// 2] (CameraPlace).
inline constexpr char kViewPictures[] = "view_pictures";
inline constexpr char kViewDepths[] = "view_depths";
inline constexpr char kViewCameras[] = "view_cameras";
inline constexpr char kIcons[] = "icons";         // U8, one file after another
inline constexpr char kIconEnds[] = "icon_ends";  // I64 [s], bytes of kIcons
// Where they were asked for, the meshes themselves, one after another: F32
// [vertices, 3], I32 [triangles, 3] of indices within a mesh, and I64 [s] each
// of where a mesh's end.
inline constexpr char kMeshVertices[] = "mesh_vertices";
inline constexpr char kMeshTriangles[] = "mesh_triangles";
inline constexpr char kMeshVertexEnds[] = "mesh_vertex_ends";
inline constexpr char kMeshTriangleEnds[] = "mesh_triangle_ends";
}  // namespace shape_tensors

// A side of a volume.
inline constexpr int kMaxVolumeCells = 256;
// Of a shape, and a side of each in pixels.
inline constexpr int kMaxShapeViews = 64;
inline constexpr int kMaxViewResolution = 1024;

// What is known of a shape beside its points.
struct ShapeRecord {
  std::string name;
  int64_t class_id = -1;  // −1: none
  std::string caption;
  std::string sign_rule;  // NameOf(SignRule)
  int64_t triangles = 0;  // after repair
  int64_t repaired = 0;   // triangles that were none
  // Of its mosaic, if there is one: mean |F − sdf| near the surface, and the
  // share of the surface that a cube covers.
  double mosaic_error = 0;
  double mosaic_coverage = 0;
};

// A shape from several cameras, as it lies in the file: pictures and depths one
// after another.
struct ShapeViews {
  std::span<const CameraPlace> cameras;
  std::span<const uint8_t> pictures;
  std::span<const float> depths;
};

// A shape's points, as they lie in the file. Distances are negative inside.
struct CachedShape {
  std::span<const Vector3f> surface_points;
  std::span<const Vector3f> surface_normals;
  std::span<const Vector3f> near_points;
  std::span<const float> near_distances;
  std::span<const Vector3f> uniform_points;
  std::span<const float> uniform_distances;
  std::span<const float> mosaic;  // tokens; empty without
  std::span<const float> volume;  // distances on a grid; empty without
  std::span<const uint8_t> view;  // [side, side, 3], a picture of the surface
  std::string_view icon;          // a picture's file, or empty
  ShapeViews views;               // empty without
  // Of the mesh within ±0.95; empty without.
  std::span<const Vector3f> mesh_vertices;
  std::span<const Triangle> mesh_triangles;

  Mesh mesh() const {
    return {.vertices = {mesh_vertices.begin(), mesh_vertices.end()},
            .triangles = {mesh_triangles.begin(), mesh_triangles.end()}};
  }
};

// Immutable once opened; any thread. The files are mapped, not read.
class ShapeCache {
 public:
  // Errors: no index (a cache whose writing has not ended), a file that is
  // damaged or is not as the index says; they name the file.
  static absl::StatusOr<ShapeCache> Open(const std::string& folder);

  int64_t size() const { return static_cast<int64_t>(places_.size()); }
  const std::vector<std::string>& class_names() const { return class_names_; }
  int view_side() const { return view_side_; }
  // 0 and 0 without mosaics.
  int mosaic_grids() const { return mosaic_grids_; }
  int mosaic_resolution() const { return mosaic_resolution_; }
  // A side of each shape's volume; 0 without.
  int volume_cells() const { return volume_cells_; }
  // Of each shape, and their side; 0 views: none.
  int views() const { return views_; }
  int view_resolution() const { return view_resolution_; }
  // The most triangles of a mesh in it; 0: it has no meshes.
  int64_t mesh_faces() const { return mesh_faces_; }

  const ShapeRecord& record(int64_t index) const;
  CachedShape Read(int64_t index) const;

 private:
  absl::Status AddShard(const std::string& path, int64_t shapes);
  // Of a shard's meshes.
  absl::Status CheckMeshes(const SafetensorsFile& file, int64_t shapes) const;

  std::vector<std::unique_ptr<const SafetensorsFile>> shards_;
  std::vector<std::pair<int32_t, int32_t>> places_;  // shard, row
  std::vector<ShapeRecord> records_;
  std::vector<std::string> class_names_;
  int64_t points_ = 0;
  int64_t uniform_points_ = 0;
  int view_side_ = 0;
  int mosaic_grids_ = 0;
  int mosaic_resolution_ = 0;
  int volume_cells_ = 0;
  int views_ = 0;
  int view_resolution_ = 0;
  int64_t mesh_faces_ = 0;

  int64_t mosaic_width() const {
    const int64_t k = mosaic_resolution_;
    return 4 + k * k * k;
  }
  int64_t view_pixels() const {
    return int64_t{view_resolution_} * view_resolution_;
  }
  int64_t volume_values() const {
    return int64_t{volume_cells_} * volume_cells_ * volume_cells_;
  }
};

// A shard's list of shapes, as its metadata has it.
std::string SerializeRecords(const std::vector<ShapeRecord>& records);
// Errors: not such a list.
absl::StatusOr<std::vector<ShapeRecord>> ParseRecords(std::string_view json);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPE_CACHE_H_
