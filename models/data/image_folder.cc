#include "models/data/image_folder.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "models/data/sample_files.h"
#include "models/data/size_cache.h"
#include "models/data/text_tokens.h"
#include "models/image/decode.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

bool IsHidden(const fs::path& path) {
  return path.filename().native().starts_with('.');
}

bool IsPicture(const fs::path& path) {
  const std::string ending = path.extension();
  return !ending.empty() && IsImageEnding(ending.substr(1));
}

// Pictures by their ending, but of a format that is not read here.
bool IsForeignPicture(const fs::path& path) {
  constexpr std::array<std::string_view, 8> kEndings = {
      ".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".jxl"};
  const std::string ending = absl::AsciiStrToLower(path.extension().native());
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

// What lies in a folder, sorted by name: file systems list in any order.
struct Listing {
  std::vector<std::string> pictures;
  std::vector<std::string> folders;
  int64_t foreign = 0;
};

absl::StatusOr<Listing> List(const fs::path& folder) {
  std::error_code error;
  Listing listing;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code type_error;
    if (IsHidden(entry->path())) continue;
    if (entry->is_directory(type_error)) {
      listing.folders.push_back(entry->path().filename());
    } else if (entry->is_regular_file(type_error) && IsPicture(entry->path())) {
      listing.pictures.push_back(entry->path().filename());
    } else if (IsForeignPicture(entry->path())) {
      ++listing.foreign;
    }
  }
  if (error) {
    return NotFound("{}: {}; expected a folder of pictures", folder.native(),
                    error.message());
  }
  std::sort(listing.pictures.begin(), listing.pictures.end());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

class ImageFolder : public Dataset {
 public:
  struct Entry {
    std::string path;  // below the folder
    int class_id = -1;
  };

  ImageFolder(std::string folder, std::vector<Entry> entries,
              std::vector<std::string> class_names)
      : folder_(std::move(folder)),
        entries_(std::move(entries)),
        class_names_(std::move(class_names)) {}

  int64_t size() const override {
    return static_cast<int64_t>(entries_.size());
  }
  int64_t num_classes() const override {
    return static_cast<int64_t>(class_names_.size());
  }
  std::string class_name(int64_t class_id) const override {
    CHECK(class_id >= 0 && class_id < num_classes()) << class_id;
    return class_names_[class_id];
  }
  uint64_t IndexHash() const override {
    std::string index;
    for (const Entry& entry : entries_) {
      index += fmt::format("{} {}\n", entry.class_id, entry.path);
    }
    return StableHash(index);
  }

  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    const Entry& entry = entries_[index];
    const fs::path path = fs::path(folder_) / entry.path;
    Sample sample;
    sample.key = entry.path;
    sample.class_id = entry.class_id;
    if (parts.image) {
      ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxImageBytes));
      absl::StatusOr<Image> image = DecodeImage(bytes);
      if (!image.ok()) return WithContext(image.status(), path.native());
      sample.image = *std::move(image);
    }
    if (parts.caption) RETURN_IF_ERROR(ReadCaption(path, sample));
    if (parts.text) {
      RETURN_IF_ERROR(ReadStates(path, ".tokens", ParseTextTokens, sample));
      RETURN_IF_ERROR(ReadStates(path, ".pooled", ParsePooledText, sample));
    }
    if (parts.text_layers) {
      RETURN_IF_ERROR(ReadStates(path, ".layers", ParseTextLayers, sample));
    }
    return sample;
  }
  absl::StatusOr<PictureSize> ReadSize(int64_t index) const override {
    CHECK(index >= 0 && index < size()) << index;
    const fs::path path = fs::path(folder_) / entries_[index].path;
    ASSIGN_OR_RETURN(std::string bytes, ReadFileStart(path, kUsualHeaderBytes));
    absl::StatusOr<PictureSize> size = ReadImageSize(bytes);
    if (!size.ok() && bytes.size() == kUsualHeaderBytes) {
      ASSIGN_OR_RETURN(bytes, ReadFile(path, kMaxImageBytes));
      size = ReadImageSize(bytes);
    }
    if (!size.ok()) return WithContext(size.status(), path.native());
    return size;
  }
  std::vector<absl::StatusOr<PictureSize>> ReadSizes() const override {
    std::vector<NamedFile> files;
    for (const Entry& entry : entries_) {
      files.push_back({entry.path, fs::path(folder_) / entry.path});
    }
    const std::optional<uint64_t> hash = HashOfFiles(files);
    if (!hash.has_value()) return Dataset::ReadSizes();
    return ReadSizesOnce(*this, fs::path(folder_) / kSizeCacheName, *hash);
  }

 private:
  static absl::Status ReadCaption(fs::path path, Sample& sample) {
    std::error_code error;
    path.replace_extension(".txt");
    if (!fs::exists(path, error)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxCaptionBytes));
    absl::StatusOr<std::string> caption = ParseCaption(text);
    if (!caption.ok()) return WithContext(caption.status(), path.native());
    sample.caption = *std::move(caption);
    return absl::OkStatus();
  }

  // Text states of the file with this ending, if it is there.
  static absl::Status ReadStates(fs::path path, const char* ending,
                                 absl::Status (*parse)(std::string_view,
                                                       Sample&),
                                 Sample& sample) {
    std::error_code error;
    path.replace_extension(ending);
    if (!fs::exists(path, error)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxTokensBytes));
    return WithContext(parse(bytes, sample), path.native());
  }

  std::string folder_;
  std::vector<Entry> entries_;
  std::vector<std::string> class_names_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenImageFolder(
    const std::string& folder) {
  ASSIGN_OR_RETURN(const Listing top, List(folder));
  std::vector<ImageFolder::Entry> entries;
  std::vector<std::string> class_names;
  int64_t foreign = top.foreign, nested = 0;
  std::string empty;
  for (const std::string& name : top.folders) {
    ASSIGN_OR_RETURN(const Listing listing, List(fs::path(folder) / name));
    foreign += listing.foreign;
    nested += static_cast<int64_t>(listing.folders.size());
    if (listing.pictures.empty()) {
      empty += (empty.empty() ? "" : ", ") + name;
      continue;
    }
    const auto class_id = static_cast<int>(class_names.size());
    class_names.push_back(name);
    for (const std::string& picture : listing.pictures) {
      entries.push_back({name + "/" + picture, class_id});
    }
  }
  if (entries.empty()) {
    for (const std::string& picture : top.pictures) {
      entries.push_back({picture, -1});
    }
  } else if (!top.pictures.empty()) {
    LOG(WARNING) << folder << ": " << top.pictures.size()
                 << " pictures outside the class folders are left out";
  }
  if (entries.empty()) {
    return NotFound(
        "{}: no picture; expected .png, .jpg, .jpeg or .webp files in it, or "
        "in one subfolder a class",
        folder);
  }
  if (foreign > 0) {
    LOG(WARNING) << folder << ": " << foreign << " pictures are left out that "
                 << "are neither PNG nor JPEG nor WebP";
  }
  if (nested > 0) {
    LOG(WARNING) << folder << ": " << nested << " folders within class folders "
                 << "are left out; a class has its pictures in one folder";
  }
  if (!empty.empty() && !class_names.empty()) {
    LOG(WARNING) << folder << ": folders without a picture are no classes, and "
                 << "have no number: " << absl::Utf8SafeCEscape(empty);
  }
  return std::make_unique<ImageFolder>(folder, std::move(entries),
                                       std::move(class_names));
}

}  // namespace trireme
