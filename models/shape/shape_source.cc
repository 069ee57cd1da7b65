#include "models/shape/shape_source.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "fmt/format.h"
#include "models/shape/furniture_catalog.h"
#include "models/shape/zip_reader.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxCatalogBytes = int64_t{16} << 20;
constexpr int64_t kMaxIconBytes = int64_t{4} << 20;
constexpr int64_t kMaxLicenseBytes = int64_t{1} << 20;

std::string EndingOf(const fs::path& path) {
  const std::string ending = absl::AsciiStrToLower(path.extension().native());
  return ending.empty() ? ending : ending.substr(1);
}

bool IsArchive(const fs::path& path) {
  return EndingOf(path) == "zip" || EndingOf(path) == "sh3f";
}

bool IsLicense(const fs::path& path) {
  const std::string name = absl::AsciiStrToLower(path.filename().native());
  return absl::StrContains(name, "license") ||
         absl::StrContains(name, "licence") ||
         absl::StrContains(name, "copying");
}

// The first folder on the way to a file, if there is one.
std::string FirstFolder(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return std::distance(normal.begin(), normal.end()) < 2
             ? ""
             : normal.begin()->native();
}

void AddLicense(const std::string& name, const std::string& text,
                std::string& licenses) {
  licenses += fmt::format("== {}\n{}\n", name, text);
}

absl::Status AddArchive(const std::string& file, const std::string& name,
                        ShapeSource& source) {
  ASSIGN_OR_RETURN(const std::vector<std::string> members, ListZip(file));
  const std::set<std::string> known(members.begin(), members.end());
  std::vector<FurniturePiece> pieces;
  if (known.contains(std::string(kFurnitureCatalog))) {
    ASSIGN_OR_RETURN(
        const std::string catalog,
        ReadZipMember(file, std::string(kFurnitureCatalog), kMaxCatalogBytes));
    pieces = ParseFurnitureCatalog(catalog);
  } else {
    for (const std::string& member : members) {
      if (!IsMeshEnding(EndingOf(member))) continue;
      pieces.push_back({.model = member, .category = FirstFolder(member)});
    }
  }
  std::set<std::string> models;
  for (const FurniturePiece& piece : pieces) {
    // A model that several pieces share is one shape.
    if (!models.insert(piece.model).second) continue;
    source.shapes.push_back(
        {.name = name + ":" + piece.model,
         .class_name = piece.category,
         .caption = piece.name,
         .file = file,
         .member = piece.model,
         .icon = known.contains(piece.icon) ? piece.icon : ""});
  }
  std::string licenses;
  for (const std::string& member : members) {
    if (!IsLicense(member)) continue;
    const auto text = ReadZipMember(file, member, kMaxLicenseBytes);
    AddLicense(member, text.ok() ? *text : MessageOf(text.status()), licenses);
  }
  if (!licenses.empty()) source.licenses[name] = licenses;
  return absl::OkStatus();
}

void AddFile(const fs::path& path, const std::string& name,
             ShapeSource& source) {
  if (IsArchive(path)) {
    const absl::Status added = AddArchive(path, name, source);
    if (!added.ok()) source.refused_archives[name] = MessageOf(added);
  } else if (IsMeshEnding(EndingOf(path))) {
    source.shapes.push_back(
        {.name = name, .class_name = FirstFolder(name), .file = path});
  } else if (IsLicense(path)) {
    const auto text = ReadFile(path, kMaxLicenseBytes);
    AddLicense(name, text.ok() ? *text : MessageOf(text.status()),
               source.licenses["folder"]);
  }
}

}  // namespace

absl::StatusOr<ShapeSource> FindShapes(const std::string& path) {
  std::error_code error;
  ShapeSource source;
  if (fs::is_directory(path, error)) {
    // Names first: file systems list in any order.
    std::vector<std::string> names;
    fs::recursive_directory_iterator entry(path, error);
    for (; !error && entry != fs::recursive_directory_iterator();
         entry.increment(error)) {
      std::error_code type_error;
      if (entry->path().filename().native().starts_with('.')) {
        if (entry->is_directory(type_error)) entry.disable_recursion_pending();
      } else if (entry->is_regular_file(type_error)) {
        names.push_back(entry->path().lexically_relative(path).native());
      }
    }
    if (error) return NotFound("{}: {}", path, error.message());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      AddFile(fs::path(path) / name, name, source);
    }
  } else if (fs::is_regular_file(path, error)) {
    AddFile(path, fs::path(path).filename(), source);
  } else {
    return NotFound("{}: expected a mesh, a zip archive or a folder of them",
                    path);
  }
  if (source.shapes.empty()) {
    return source.refused_archives.empty()
               ? NotFound(
                     "{}: no mesh in it (.obj, .ply, .stl, .off, .glb, or "
                     "those in .zip and .sh3f)",
                     path)
               : DataLoss("{}", source.refused_archives.begin()->second);
  }
  return source;
}

absl::StatusOr<Mesh> ReadShape(const ShapeEntry& entry,
                               const MeshReadLimits& limits) {
  if (entry.member.empty()) return ReadMesh(entry.file, limits);
  auto bytes = ReadZipMember(entry.file, entry.member, limits.max_file_bytes);
  if (!bytes.ok()) return WithContext(bytes.status(), entry.name);
  auto mesh = ParseMesh(*bytes, EndingOf(entry.member), limits);
  if (!mesh.ok()) return WithContext(mesh.status(), entry.name);
  return mesh;
}

absl::StatusOr<std::string> ReadIcon(const ShapeEntry& entry) {
  if (entry.icon.empty()) return std::string();
  return ReadZipMember(entry.file, entry.icon, kMaxIconBytes);
}

}  // namespace trireme
