#include "models/shape/shape_cache_writer.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/file.h"
#include "runtime/core/philox.h"
#include "runtime/core/shared_folder.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxPlanBytes = int64_t{64} << 20;

std::string Dump(const json& value) {
  return value.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string ShardName(int64_t shard) {
  return fmt::format("shapes-{:06}.safetensors", shard);
}

// Whether another try may go well, so that it is nothing of the shape's.
bool MayPass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsInternal(status);
}

// The bytes of a shard's tensors as they grow, by name.
class ShardTensors {
 public:
  template <typename T>
  void Append(const char* name, const std::vector<T>& values) {
    bytes_[name].append(reinterpret_cast<const char*>(values.data()),
                        values.size() * sizeof(T));
  }
  void Append(const char* name, const std::string& bytes) {
    bytes_[name] += bytes;
  }
  const std::string& bytes(const std::string& name) { return bytes_[name]; }

 private:
  std::map<std::string, std::string> bytes_;
};

json RefusedJson(const std::vector<RefusedShape>& refused) {
  json list = json::array();
  for (const RefusedShape& shape : refused) {
    list.push_back({{"name", shape.name},
                    {"reason", shape.reason},
                    {"message", shape.message}});
  }
  return list;
}

absl::StatusOr<std::vector<RefusedShape>> ParseRefused(
    const std::string& text) {
  std::vector<RefusedShape> refused;
  const json list = json::parse(text, nullptr, false);
  if (!list.is_array()) return DataLoss("expected a list of refused shapes");
  for (const json& item : list) {
    const auto has = [&](const char* field) {
      return item.is_object() && item.contains(field) &&
             item[field].is_string();
    };
    if (!has("name") || !has("reason") || !has("message")) {
      return DataLoss("refused shape {} lacks a field", refused.size());
    }
    refused.push_back({item["name"], item["reason"], item["message"]});
  }
  return refused;
}

absl::Status WriteShard(const std::string& path,
                        const ShapeCacheOptions& options,
                        const std::vector<PreparedShape>& shapes,
                        const std::vector<RefusedShape>& refused) {
  namespace names = shape_tensors;
  ShardTensors tensors;
  std::vector<ShapeRecord> records;
  std::vector<int64_t> icon_ends;
  int64_t icon_bytes = 0;
  std::vector<int64_t> vertex_ends;
  std::vector<int64_t> triangle_ends;
  int64_t vertices = 0;
  int64_t triangles = 0;
  for (const PreparedShape& shape : shapes) {
    records.push_back(shape.record);
    tensors.Append(names::kSurfacePoints, shape.surface_points);
    tensors.Append(names::kSurfaceNormals, shape.surface_normals);
    tensors.Append(names::kNearPoints, shape.near_points);
    tensors.Append(names::kNearDistances, shape.near_distances);
    tensors.Append(names::kUniformPoints, shape.uniform_points);
    tensors.Append(names::kUniformDistances, shape.uniform_distances);
    tensors.Append(names::kMosaics, shape.mosaic);
    tensors.Append(names::kVolumes, shape.volume);
    tensors.Append(names::kViews, shape.view.pixels);
    tensors.Append(names::kViewPictures, shape.view_pictures);
    tensors.Append(names::kViewDepths, shape.view_depths);
    tensors.Append(names::kViewCameras, shape.view_cameras);
    tensors.Append(names::kIcons, shape.icon);
    icon_bytes += static_cast<int64_t>(shape.icon.size());
    icon_ends.push_back(icon_bytes);
    tensors.Append(names::kMeshVertices, shape.mesh.vertices);
    tensors.Append(names::kMeshTriangles, shape.mesh.triangles);
    vertices += static_cast<int64_t>(shape.mesh.vertices.size());
    triangles += static_cast<int64_t>(shape.mesh.triangles.size());
    vertex_ends.push_back(vertices);
    triangle_ends.push_back(triangles);
  }
  tensors.Append(names::kMeshVertexEnds, vertex_ends);
  tensors.Append(names::kMeshTriangleEnds, triangle_ends);
  tensors.Append(names::kIconEnds, icon_ends);
  const auto count = static_cast<int64_t>(shapes.size());
  const Shape points{count, options.points, 3};
  const Shape uniform{count, options.uniform_points, 3};
  std::vector<SafetensorsEntry> entries;
  if (count > 0) {
    entries = {
        {names::kSurfacePoints, DType::kFloat32, points},
        {names::kSurfaceNormals, DType::kFloat32, points},
        {names::kNearPoints, DType::kFloat32, points},
        {names::kNearDistances, DType::kFloat32, {count, options.points}},
        {names::kUniformPoints, DType::kFloat32, uniform},
        {names::kUniformDistances,
         DType::kFloat32,
         {count, options.uniform_points}},
        {names::kViews,
         DType::kUint8,
         {count, options.view_side, options.view_side, 3}},
        {names::kIcons, DType::kUint8, {icon_bytes}},
        {names::kIconEnds, DType::kInt64, {count}}};
    if (options.mosaic.grids > 0) {
      const int64_t width =
          static_cast<int64_t>(shapes[0].mosaic.size()) / options.mosaic.grids;
      entries.push_back({names::kMosaics,
                         DType::kFloat32,
                         {count, options.mosaic.grids, width}});
    }
    if (options.volume_cells > 0) {
      const int64_t cells = options.volume_cells;
      entries.push_back(
          {names::kVolumes, DType::kFloat32, {count, cells, cells, cells}});
    }
    if (options.views > 0) {
      const int64_t side = options.view_resolution;
      entries.insert(
          entries.end(),
          {{names::kViewPictures,
            DType::kUint8,
            {count, options.views, side, side, 3}},
           {names::kViewDepths,
            DType::kFloat32,
            {count, options.views, side, side}},
           {names::kViewCameras, DType::kFloat32, {count, options.views, 2}}});
    }
    if (options.mesh_faces > 0) {
      entries.insert(entries.end(),
                     {{names::kMeshVertices, DType::kFloat32, {vertices, 3}},
                      {names::kMeshTriangles, DType::kInt32, {triangles, 3}},
                      {names::kMeshVertexEnds, DType::kInt64, {count}},
                      {names::kMeshTriangleEnds, DType::kInt64, {count}}});
    }
  }
  ASSIGN_OR_RETURN(
      auto writer,
      SafetensorsWriter::Create(
          path, entries,
          {{"format", "trireme.shapes"},
           {"shapes", SerializeRecords(records)},
           {"refused", RefusedJson(refused).dump(
                           -1, ' ', false, json::error_handler_t::replace)}}));
  for (const SafetensorsEntry& entry : writer->entries()) {
    const std::string& bytes = tensors.bytes(entry.name);
    RETURN_IF_ERROR(writer->Append(entry.name, bytes.data(),
                                   static_cast<int64_t>(bytes.size())));
  }
  return writer->Commit().status();
}

class Writer {
 public:
  Writer(const ShapeSource& source, const ShapeCacheOptions& options,
         const std::function<void(int64_t)>& progress)
      : source_(source), options_(options), progress_(progress) {
    std::set<std::string> classes;
    for (const ShapeEntry& entry : source.shapes) {
      if (!entry.class_name.empty()) classes.insert(entry.class_name);
    }
    classes_.assign(classes.begin(), classes.end());
  }

  // What the cache is of, which all that write to it must agree on; the first
  // one writes it down.
  absl::Status AgreeOnPlan() {
    const std::string path = options_.folder + "/source.json";
    std::string names;
    for (const ShapeEntry& entry : source_.shapes) {
      names += entry.name + "\n" + entry.class_name + "\n";
    }
    const json plan = {
        {"shapes", source_.shapes.size()},
        {"names_hash", fmt::format("{:016x}", StableHash(names))},
        {"points", options_.points},
        {"uniform_points", options_.uniform_points},
        {"shapes_per_shard", options_.shapes_per_shard},
        {"seed", options_.seed},
        {"shell_cells", options_.shell_cells},
        {"view_side", options_.view_side},
        {"mosaic_grids", options_.mosaic.grids},
        {"mosaic_resolution", options_.mosaic.resolution},
        {"volume_cells", options_.volume_cells},
        {"mesh_faces", options_.mesh_faces},
        // Volumes have not always been of thickened shapes.
        {"volumes_thickened", options_.volume_cells > 0 ? 1 : 0},
        {"views", options_.views},
        {"view_resolution", options_.views > 0 ? options_.view_resolution : 0}};
    RETURN_IF_ERROR(WriteUnlessThere(options_.folder, path, Dump(plan)));
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPlanBytes));
    const json found = json::parse(text, nullptr, false);
    for (const auto& [field, expected] : plan.items()) {
      const bool there = found.is_object() && found.contains(field);
      // Caches of earlier versions do not name what they could not have.
      if (there ? found[field] == expected
                : expected == 0 && found.is_object()) {
        continue;
      }
      return FailedPrecondition(
          "{}: {}: found {}, expected {}: the cache is of other shapes or "
          "options; give it a folder of its own",
          path, field, there ? found[field].dump() : "nothing",
          expected.dump());
    }
    return WriteLicenses();
  }

  absl::Status WriteShards() {
    for (int64_t shard = 0; shard < shards(); ++shard) {
      RETURN_IF_ERROR(WriteOnce(shard));
    }
    return absl::OkStatus();
  }

  // Counts what the shards hold; writes the index if none is missing.
  absl::StatusOr<ShapeCacheSummary> Finish() {
    ShapeCacheSummary summary;
    summary.shards = shards();
    json files = json::array();
    for (int64_t shard = 0; shard < shards(); ++shard) {
      std::error_code error;
      if (!fs::exists(PathOf(shard), error)) {
        ++summary.elsewhere;
        continue;
      }
      ASSIGN_OR_RETURN(const int64_t shapes, Count(PathOf(shard), summary));
      files.push_back({{"file", ShardName(shard)}, {"shapes", shapes}});
    }
    if (summary.elsewhere > 0) return summary;
    if (summary.shapes == 0) {
      return NotFound(
          "none of {} shapes can be used; the first: {}", source_.shapes.size(),
          summary.refused.empty() ? "" : summary.refused[0].message);
    }
    const json index = {{"shapes", summary.shapes},
                        {"points", options_.points},
                        {"uniform_points", options_.uniform_points},
                        {"view_side", options_.view_side},
                        {"mosaic_grids", options_.mosaic.grids},
                        {"mosaic_resolution", options_.mosaic.resolution},
                        {"mosaic_error", summary.mosaic_error},
                        {"volume_cells", options_.volume_cells},
                        {"mesh_faces", options_.mesh_faces},
                        {"views", options_.views},
                        {"view_resolution", options_.view_resolution},
                        {"classes", classes_},
                        {"shards", files},
                        {"sign_rules", summary.by_sign_rule},
                        {"repaired_shapes", summary.repaired_shapes},
                        {"repaired_triangles", summary.repaired_triangles},
                        {"refused", RefusedJson(summary.refused)},
                        {"refused_archives", source_.refused_archives}};
    RETURN_IF_ERROR(
        WriteFileAtomically(options_.folder + "/index.json", Dump(index)));
    return summary;
  }

 private:
  int64_t count() const { return static_cast<int64_t>(source_.shapes.size()); }
  int64_t shards() const {
    return (count() + options_.shapes_per_shard - 1) /
           options_.shapes_per_shard;
  }
  std::string PathOf(int64_t shard) const {
    return options_.folder + "/" + ShardName(shard);
  }

  absl::Status WriteLicenses() {
    if (source_.licenses.empty()) return absl::OkStatus();
    const std::string folder = options_.folder + "/licenses";
    for (const auto& [archive, text] : source_.licenses) {
      // In the folders that the archive is in below the source.
      const fs::path path = folder + "/" + archive + ".txt";
      RETURN_IF_ERROR(MakeDirectories(path.parent_path()));
      RETURN_IF_ERROR(WriteFileAtomically(path, text));
    }
    return absl::OkStatus();
  }

  absl::Status WriteOnce(int64_t shard) {
    const int64_t first = shard * options_.shapes_per_shard;
    const int64_t last = std::min(first + options_.shapes_per_shard, count());
    RETURN_IF_ERROR(WritePieceOnce(options_.folder, shard, PathOf(shard),
                                   [&] { return Write(shard, first, last); }));
    Progress(last - first - std::exchange(told_, 0));
    return absl::OkStatus();
  }

  absl::Status Write(int64_t shard, int64_t first, int64_t last) {
    std::vector<absl::StatusOr<PreparedShape>> prepared(
        last - first, absl::UnknownError("not prepared"));
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = first; i < last; ++i) {
      prepared[i - first] = PrepareShape(source_.shapes[i], options_);
#pragma omp critical
      {
        ++told_;
        Progress(1);
      }
    }
    std::vector<PreparedShape> shapes;
    std::vector<RefusedShape> refused;
    for (int64_t i = first; i < last; ++i) {
      auto& shape = prepared[i - first];
      const ShapeEntry& entry = source_.shapes[i];
      if (!shape.ok()) {
        if (MayPass(shape.status())) return shape.status();
        refused.push_back({entry.name, RefusalName(shape.status().code()),
                           MessageOf(shape.status())});
        continue;
      }
      if (!entry.class_name.empty()) {
        shape->record.class_id =
            std::lower_bound(classes_.begin(), classes_.end(),
                             entry.class_name) -
            classes_.begin();
      }
      shapes.push_back(*std::move(shape));
    }
    return WriteShard(PathOf(shard), options_, shapes, refused);
  }

  static absl::StatusOr<int64_t> Count(const std::string& path,
                                       ShapeCacheSummary& summary) {
    ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
    const auto metadata = [&](const char* name) {
      const auto found = file->metadata().find(name);
      return found == file->metadata().end() ? "" : found->second;
    };
    const auto records = ParseRecords(metadata("shapes"));
    if (!records.ok()) return WithContext(records.status(), path);
    for (const ShapeRecord& record : *records) {
      ++summary.shapes;
      ++summary.by_sign_rule[record.sign_rule];
      summary.repaired_shapes += record.repaired > 0;
      summary.repaired_triangles += record.repaired;
      summary.mosaic_error += (record.mosaic_error - summary.mosaic_error) /
                              static_cast<double>(summary.shapes);
      if (record.mosaic_error > summary.worst_mosaic_error) {
        summary.worst_mosaic_error = record.mosaic_error;
        summary.worst_mosaic = record.name;
      }
    }
    auto refused = ParseRefused(metadata("refused"));
    if (!refused.ok()) return WithContext(refused.status(), path);
    for (RefusedShape& shape : *refused) {
      summary.refused.push_back(std::move(shape));
    }
    return static_cast<int64_t>(records->size());
  }

  void Progress(int64_t more) {
    done_ += more;
    if (progress_ && more > 0) progress_(done_);
  }

  const ShapeSource& source_;
  const ShapeCacheOptions& options_;
  const std::function<void(int64_t)>& progress_;
  std::vector<std::string> classes_;
  int64_t done_ = 0;
  int64_t told_ = 0;  // of the shard at hand
};

}  // namespace

absl::StatusOr<ShapeCacheSummary> WriteShapeCache(
    const ShapeSource& source, const ShapeCacheOptions& options,
    const std::function<void(int64_t)>& progress) {
  Writer writer(source, options, progress);
  RETURN_IF_ERROR(writer.AgreeOnPlan());
  RETURN_IF_ERROR(writer.WriteShards());
  return writer.Finish();
}

}  // namespace trireme
