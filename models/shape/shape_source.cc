#include "models/shape/shape_source.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
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

// `read` gives the text of at most so many bytes. Of very many files the first
// ones are kept.
template <typename Read>
void AddLicense(const std::string& name, const Read& read,
                std::string& licenses) {
  const int64_t left = kMaxLicenseBytes - static_cast<int64_t>(licenses.size());
  if (left <= 0) return;
  const absl::StatusOr<std::string> text = read(left);
  licenses += fmt::format("== {}\n{}\n", name,
                          text.ok() ? *text : MessageOf(text.status()));
  if (static_cast<int64_t>(licenses.size()) >= kMaxLicenseBytes) {
    licenses += "== what comes after it is left out\n";
  }
}

// An error that begins with the name that a file has within its source, not
// with the place of the source.
absl::Status Named(const absl::Status& status, const std::string& file,
                   const std::string& name) {
  return absl::Status(
      status.code(),
      fmt::format("{}: {}", name,
                  absl::StrReplaceAll(MessageOf(status), {{file + ": ", ""}})));
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
    AddLicense(
        member, [&](int64_t most) { return ReadZipMember(file, member, most); },
        licenses);
  }
  if (!licenses.empty()) source.licenses[name] = licenses;
  return absl::OkStatus();
}

void AddFile(const fs::path& path, const std::string& name,
             ShapeSource& source) {
  if (IsArchive(path)) {
    const absl::Status added = AddArchive(path, name, source);
    if (!added.ok()) {
      source.refused_archives[name] = MessageOf(Named(added, path, name));
    }
  } else if (IsMeshEnding(EndingOf(path))) {
    source.shapes.push_back(
        {.name = name, .class_name = FirstFolder(name), .file = path});
  } else if (IsLicense(path)) {
    AddLicense(
        name, [&](int64_t most) { return ReadFile(path, most); },
        source.licenses["folder"]);
  }
}

}  // namespace

absl::StatusOr<ShapeSource> FindShapes(const std::string& path) {
  std::error_code error;
  ShapeSource source;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::none) {
    return Unavailable("{}: cannot examine: {}", path, error.message());
  }
  error.clear();
  if (type == fs::file_type::directory) {
    // Names first: file systems list in any order.
    std::vector<std::string> names;
    std::string at = path;
    fs::recursive_directory_iterator entry(path, error);
    for (; !error && entry != fs::recursive_directory_iterator();
         entry.increment(error)) {
      at = entry->path();
      std::error_code type_error;
      if (entry->path().filename().native().starts_with('.')) {
        if (entry->is_directory(type_error)) entry.disable_recursion_pending();
      } else if (entry->is_regular_file(type_error)) {
        names.push_back(entry->path().lexically_relative(path).native());
      }
    }
    if (error) return Unavailable("{}: cannot list: {}", at, error.message());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      AddFile(fs::path(path) / name, name, source);
    }
  } else if (type == fs::file_type::regular) {
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
               : DataLoss("{}: no mesh in it; {}", path,
                          source.refused_archives.begin()->second);
  }
  return source;
}

absl::Status KeepKinds(std::span<const std::string> kinds,
                       ShapeSource& source) {
  std::vector<ShapeEntry> kept;
  for (ShapeEntry& shape : source.shapes) {
    std::string text = absl::AsciiStrToLower(
        shape.caption.empty() ? shape.name : shape.caption);
    // Whatever stands between words.
    std::replace_if(
        text.begin(), text.end(),
        [](unsigned char c) { return !absl::ascii_isalpha(c) && c < 0x80; },
        ' ');
    const std::vector<std::string> words =
        absl::StrSplit(text, ' ', absl::SkipEmpty());
    const auto kind =
        std::find_if(kinds.begin(), kinds.end(), [&](const std::string& name) {
          return std::any_of(
              words.begin(), words.end(), [&](const std::string& word) {
                return absl::EndsWith(word, absl::AsciiStrToLower(name));
              });
        });
    if (kind == kinds.end()) continue;
    shape.class_name = *kind;
    kept.push_back(std::move(shape));
  }
  if (kept.empty()) {
    return NotFound("found none of {} in the names of {} shapes",
                    fmt::join(kinds, ", "), source.shapes.size());
  }
  source.shapes = std::move(kept);
  return absl::OkStatus();
}

absl::StatusOr<Mesh> ReadShape(const ShapeEntry& entry,
                               const MeshReadLimits& limits) {
  const bool alone = entry.member.empty();
  const auto bytes =
      alone ? ReadFile(entry.file, limits.max_file_bytes)
            : ReadZipMember(entry.file, entry.member, limits.max_file_bytes);
  if (!bytes.ok()) return Named(bytes.status(), entry.file, entry.name);
  auto mesh =
      ParseMesh(*bytes, EndingOf(alone ? entry.file : entry.member), limits);
  if (!mesh.ok()) return WithContext(mesh.status(), entry.name);
  return mesh;
}

absl::StatusOr<std::string> ReadIcon(const ShapeEntry& entry) {
  if (entry.icon.empty()) return std::string();
  return ReadZipMember(entry.file, entry.icon, kMaxIconBytes);
}

}  // namespace trireme
