#include "models/shape/shape_cache.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <tuple>

#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using nlohmann::json;

constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;
// Of points, grids or a picture's side.
constexpr int64_t kMaxCount = int64_t{1} << 30;

template <typename T>
std::span<const T> RowOf(const SafetensorsFile& file, const char* name,
                         int64_t row, int64_t count) {
  const auto bytes = file.Data(name);
  CHECK_OK(bytes.status());
  return std::span(reinterpret_cast<const T*>(bytes->data()) + row * count,
                   static_cast<size_t>(count));
}

// Part `row` of [rows, width] in parts that end where the tensor `ends` says.
template <typename T>
std::span<const T> PartOf(const SafetensorsFile& file, const char* name,
                          const char* ends, int64_t row) {
  const int64_t begin =
      row == 0 ? 0 : RowOf<int64_t>(file, ends, row - 1, 1)[0];
  const int64_t end = RowOf<int64_t>(file, ends, row, 1)[0];
  const auto bytes = file.Data(name);
  CHECK_OK(bytes.status());
  return std::span(reinterpret_cast<const T*>(bytes->data()) + begin,
                   static_cast<size_t>(end - begin));
}

// Whether parts end in ascending order within `rows`.
absl::Status CheckEnds(const SafetensorsFile& file, const char* ends,
                       int64_t parts, int64_t rows, const char* thing) {
  int64_t end = 0;
  for (const int64_t next : RowOf<int64_t>(file, ends, 0, parts)) {
    if (next < end || next > rows) {
      return DataLoss("{}: {} that ends at {} of {}", file.path(), thing, next,
                      rows);
    }
    end = next;
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const SafetensorsFile& file, const char* name,
                         DType dtype, const Shape& shape) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) {
    return DataLoss("{}: no tensor '{}'", file.path(), name);
  }
  if (found->second.dtype != dtype || found->second.shape != shape) {
    return DataLoss("{}: tensor '{}' of shape {}, expected {}", file.path(),
                    name, found->second.shape.ToString(), shape.ToString());
  }
  return absl::OkStatus();
}

}  // namespace

std::string SerializeRecords(const std::vector<ShapeRecord>& records) {
  json list = json::array();
  for (const ShapeRecord& record : records) {
    list.push_back({{"name", record.name},
                    {"class", record.class_id},
                    {"caption", record.caption},
                    {"sign", record.sign_rule},
                    {"triangles", record.triangles},
                    {"repaired", record.repaired},
                    {"mosaic_error", record.mosaic_error},
                    {"mosaic_coverage", record.mosaic_coverage}});
  }
  // Names are those of strangers' files: what is no UTF-8 is replaced.
  return list.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<std::vector<ShapeRecord>> ParseRecords(std::string_view text) {
  const json list = json::parse(text, nullptr, false);
  if (!list.is_array()) return DataLoss("expected a list of shapes");
  std::vector<ShapeRecord> records;
  for (const json& item : list) {
    const auto has = [&](std::initializer_list<const char*> fields,
                         bool (json::*is)() const noexcept) {
      return std::all_of(fields.begin(), fields.end(), [&](const char* field) {
        return item.contains(field) && (item[field].*is)();
      });
    };
    if (!item.is_object() ||
        !has({"name", "caption", "sign"}, &json::is_string) ||
        !has({"class", "triangles", "repaired"}, &json::is_number_integer) ||
        !has({"mosaic_error", "mosaic_coverage"}, &json::is_number)) {
      return DataLoss("shape {} lacks a field", records.size());
    }
    records.push_back({item["name"], item["class"], item["caption"],
                       item["sign"], item["triangles"], item["repaired"],
                       item["mosaic_error"], item["mosaic_coverage"]});
  }
  return records;
}

absl::StatusOr<ShapeCache> ShapeCache::Open(const std::string& folder) {
  const std::string path = folder + "/index.json";
  const auto text = ReadFile(path, kMaxIndexBytes);
  if (!text.ok()) {
    return NotFound(
        "{}: expected a shape cache, whose index.json comes when all of it is "
        "written (trireme data --shapes)",
        MessageOf(text.status()));
  }
  const json index = json::parse(*text, nullptr, false);
  // −1: not there, or beyond what any cache has.
  const auto number = [&](const char* field) -> int64_t {
    const bool there = index.is_object() && index.contains(field) &&
                       index[field].is_number_integer();
    const int64_t value = there ? index[field].get<int64_t>() : -1;
    return value <= kMaxCount ? value : -1;
  };
  ShapeCache cache;
  cache.points_ = number("points");
  cache.uniform_points_ = number("uniform_points");
  cache.view_side_ = static_cast<int>(number("view_side"));
  cache.mosaic_grids_ = static_cast<int>(number("mosaic_grids"));
  cache.mosaic_resolution_ = static_cast<int>(number("mosaic_resolution"));
  // Caches of earlier versions say nothing of these.
  cache.volume_cells_ =
      static_cast<int>(std::max<int64_t>(number("volume_cells"), 0));
  cache.mesh_faces_ = std::max<int64_t>(number("mesh_faces"), 0);
  const int64_t views = std::max<int64_t>(number("views"), 0);
  const int64_t view_resolution = views > 0 ? number("view_resolution") : 0;
  if (views > kMaxShapeViews || view_resolution > kMaxViewResolution ||
      view_resolution < (views > 0 ? 1 : 0)) {
    return DataLoss("{}: {} views of {} pixels, expected up to {} of up to {}",
                    path, views, view_resolution, kMaxShapeViews,
                    kMaxViewResolution);
  }
  cache.views_ = static_cast<int>(views);
  cache.view_resolution_ = static_cast<int>(view_resolution);
  if (cache.points_ < 1 || cache.uniform_points_ < 1 || cache.view_side_ < 1 ||
      cache.mosaic_grids_ < 0 || cache.mosaic_resolution_ < 0 ||
      cache.mosaic_resolution_ > kMaxVolumeCells ||
      cache.volume_cells_ > kMaxVolumeCells || !index.contains("classes") ||
      !index["classes"].is_array() || !index.contains("shards") ||
      !index["shards"].is_array()) {
    return DataLoss("{}: no index of a shape cache", path);
  }
  for (const json& name : index["classes"]) {
    if (!name.is_string()) return DataLoss("{}: a class without a name", path);
    cache.class_names_.push_back(name);
  }
  for (const json& shard : index["shards"]) {
    if (!shard.is_object() || !shard.contains("file") ||
        !shard["file"].is_string() || !shard.contains("shapes") ||
        !shard["shapes"].is_number_integer()) {
      return DataLoss("{}: a shard without its file or its shapes", path);
    }
    const std::string name = shard["file"];
    if (name.find('/') != std::string::npos) {
      return DataLoss("{}: shard '{}' is in another folder", path, name);
    }
    RETURN_IF_ERROR(cache.AddShard(folder + "/" + name, shard["shapes"]));
  }
  if (cache.size() == 0) return NotFound("{}: no shape in it", folder);
  return cache;
}

absl::Status ShapeCache::AddShard(const std::string& path, int64_t shapes) {
  ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
  const auto listed = file->metadata().find("shapes");
  if (listed == file->metadata().end()) {
    return DataLoss("{}: no list of shapes in its metadata", path);
  }
  const auto records = ParseRecords(listed->second);
  if (!records.ok()) return WithContext(records.status(), path);
  if (static_cast<int64_t>(records->size()) != shapes) {
    return DataLoss("{}: {} shapes, expected {} as in the index", path,
                    records->size(), shapes);
  }
  if (shapes == 0) return absl::OkStatus();
  namespace names = shape_tensors;
  const Shape points{shapes, points_, 3};
  const Shape uniform{shapes, uniform_points_, 3};
  const std::pair<const char*, Shape> floats[] = {
      {names::kSurfacePoints, points},
      {names::kSurfaceNormals, points},
      {names::kNearPoints, points},
      {names::kNearDistances, Shape{shapes, points_}},
      {names::kUniformPoints, uniform},
      {names::kUniformDistances, Shape{shapes, uniform_points_}}};
  for (const auto& [name, shape] : floats) {
    RETURN_IF_ERROR(CheckTensor(*file, name, DType::kFloat32, shape));
  }
  if (mosaic_grids_ > 0) {
    RETURN_IF_ERROR(CheckTensor(*file, names::kMosaics, DType::kFloat32,
                                {shapes, mosaic_grids_, mosaic_width()}));
  }
  if (volume_cells_ > 0) {
    RETURN_IF_ERROR(
        CheckTensor(*file, names::kVolumes, DType::kFloat32,
                    {shapes, volume_cells_, volume_cells_, volume_cells_}));
  }
  if (views_ > 0) {
    const int64_t side = view_resolution_;
    RETURN_IF_ERROR(CheckTensor(*file, names::kViewPictures, DType::kUint8,
                                {shapes, views_, side, side, 3}));
    RETURN_IF_ERROR(CheckTensor(*file, names::kViewDepths, DType::kFloat32,
                                {shapes, views_, side, side}));
    RETURN_IF_ERROR(CheckTensor(*file, names::kViewCameras, DType::kFloat32,
                                {shapes, views_, 2}));
  }
  RETURN_IF_ERROR(CheckTensor(*file, names::kViews, DType::kUint8,
                              Shape{shapes, view_side_, view_side_, 3}));
  RETURN_IF_ERROR(
      CheckTensor(*file, names::kIconEnds, DType::kInt64, Shape{shapes}));
  ASSIGN_OR_RETURN(const auto icons, file->Data(names::kIcons));
  RETURN_IF_ERROR(CheckEnds(*file, names::kIconEnds, shapes,
                            static_cast<int64_t>(icons.size()), "an icon"));
  if (mesh_faces_ > 0) RETURN_IF_ERROR(CheckMeshes(*file, shapes));
  for (int64_t row = 0; row < shapes; ++row) {
    const ShapeRecord& record = (*records)[row];
    if (record.class_id < -1 ||
        record.class_id >= static_cast<int64_t>(class_names_.size())) {
      return DataLoss("{}: {} is of class {} of {}", path, record.name,
                      record.class_id, class_names_.size());
    }
    places_.emplace_back(shards_.size(), row);
    records_.push_back(record);
  }
  shards_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status ShapeCache::CheckMeshes(const SafetensorsFile& file,
                                     int64_t shapes) const {
  namespace names = shape_tensors;
  for (const auto& [name, ends, dtype, thing] :
       {std::tuple(names::kMeshVertices, names::kMeshVertexEnds,
                   DType::kFloat32, "a mesh's vertices"),
        std::tuple(names::kMeshTriangles, names::kMeshTriangleEnds,
                   DType::kInt32, "a mesh's triangles")}) {
    const auto found = file.tensors().find(name);
    const int64_t rows =
        found == file.tensors().end() || found->second.shape.rank() != 2
            ? 0
            : found->second.shape.dim(0);
    RETURN_IF_ERROR(CheckTensor(file, name, dtype, {rows, 3}));
    RETURN_IF_ERROR(CheckTensor(file, ends, DType::kInt64, {shapes}));
    RETURN_IF_ERROR(CheckEnds(file, ends, shapes, rows, thing));
  }
  for (int64_t row = 0; row < shapes; ++row) {
    const auto vertices = PartOf<Vector3f>(file, names::kMeshVertices,
                                           names::kMeshVertexEnds, row);
    for (const Vector3f& vertex : vertices) {
      if (std::isfinite(vertex.x) && std::isfinite(vertex.y) &&
          std::isfinite(vertex.z)) {
        continue;
      }
      return DataLoss("{}: a vertex at {}, {}, {}", file.path(), vertex.x,
                      vertex.y, vertex.z);
    }
    for (const Triangle& triangle : PartOf<Triangle>(
             file, names::kMeshTriangles, names::kMeshTriangleEnds, row)) {
      for (const int32_t vertex : triangle) {
        if (vertex >= 0 && vertex < static_cast<int64_t>(vertices.size())) {
          continue;
        }
        return DataLoss("{}: a triangle of vertex {} of {}", file.path(),
                        vertex, vertices.size());
      }
    }
  }
  return absl::OkStatus();
}

const ShapeRecord& ShapeCache::record(int64_t index) const {
  CHECK(index >= 0 && index < size()) << index;
  return records_[index];
}

CachedShape ShapeCache::Read(int64_t index) const {
  CHECK(index >= 0 && index < size()) << index;
  const auto [shard, row] = places_[index];
  const SafetensorsFile& file = *shards_[shard];
  namespace names = shape_tensors;
  CachedShape shape;
  shape.surface_points =
      RowOf<Vector3f>(file, names::kSurfacePoints, row, points_);
  shape.surface_normals =
      RowOf<Vector3f>(file, names::kSurfaceNormals, row, points_);
  shape.near_points = RowOf<Vector3f>(file, names::kNearPoints, row, points_);
  shape.near_distances =
      RowOf<float>(file, names::kNearDistances, row, points_);
  shape.uniform_points =
      RowOf<Vector3f>(file, names::kUniformPoints, row, uniform_points_);
  shape.uniform_distances =
      RowOf<float>(file, names::kUniformDistances, row, uniform_points_);
  if (mosaic_grids_ > 0) {
    shape.mosaic = RowOf<float>(file, names::kMosaics, row,
                                mosaic_grids_ * mosaic_width());
  }
  if (volume_cells_ > 0) {
    shape.volume = RowOf<float>(file, names::kVolumes, row, volume_values());
  }
  if (views_ > 0) {
    const int64_t pixels = views_ * view_pixels();
    shape.views = {RowOf<CameraPlace>(file, names::kViewCameras, row, views_),
                   RowOf<uint8_t>(file, names::kViewPictures, row, 3 * pixels),
                   RowOf<float>(file, names::kViewDepths, row, pixels)};
  }
  shape.view = RowOf<uint8_t>(file, names::kViews, row,
                              int64_t{view_side_} * view_side_ * 3);
  const auto icon = PartOf<char>(file, names::kIcons, names::kIconEnds, row);
  shape.icon = {icon.data(), icon.size()};
  if (mesh_faces_ > 0) {
    shape.mesh_vertices = PartOf<Vector3f>(file, names::kMeshVertices,
                                           names::kMeshVertexEnds, row);
    shape.mesh_triangles = PartOf<Triangle>(file, names::kMeshTriangles,
                                            names::kMeshTriangleEnds, row);
  }
  return shape;
}

}  // namespace trireme
