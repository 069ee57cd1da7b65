#include "models/data/webdataset.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "models/data/sample_files.h"
#include "models/data/size_cache.h"
#include "models/data/tar_reader.h"
#include "models/data/text_tokens.h"
#include "models/image/decode.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxClassBytes = 64;
constexpr int64_t kMaxClassNamesBytes = int64_t{16} << 20;
constexpr int64_t kNone = -1;
constexpr int32_t kNoClass = -1;
constexpr int32_t kDamagedClass = -2;

// Where a sample's members begin in its shard.
struct Entry {
  uint32_t shard = 0;
  int32_t class_id = kNoClass;
  int64_t image = kNone;    // or its latents
  int64_t picture = kNone;  // beside latents that do not stand for it
  int64_t caption = kNone;
  int64_t json = kNone;
  int64_t tokens = kNone;
  int64_t pooled = kNone;
  int64_t layers = kNone;
};

// "a/b/0001.seg.png" is the field "seg.png" of the sample "a/b/0001".
std::pair<std::string_view, std::string_view> StemAndField(
    std::string_view path) {
  const size_t slash = path.rfind('/');
  const size_t dot =
      path.find('.', slash == std::string_view::npos ? 0 : slash);
  if (dot == std::string_view::npos) return {path, {}};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

class WebDataset : public Dataset {
 public:
  WebDataset(std::vector<std::string> shards, std::vector<Entry> entries,
             std::vector<std::string> class_names, const LatentFormat& latents)
      : shards_(std::move(shards)),
        entries_(std::move(entries)),
        class_names_(std::move(class_names)),
        latents_(latents) {}

  uint64_t IndexHash() const override {
    std::string index;
    for (const Entry& entry : entries_) {
      index +=
          fmt::format("{} {} {} {} {} {}\n", entry.shard, entry.class_id,
                      entry.image, entry.caption, entry.json, entry.tokens);
    }
    // Sets without pooled text or layers keep the hash that runs have written
    // down.
    for (const auto& [name, member] : {std::pair("pooled", &Entry::pooled),
                                       std::pair("layers", &Entry::layers)}) {
      for (size_t i = 0; i < entries_.size(); ++i) {
        if (entries_[i].*member == kNone) continue;
        index += fmt::format("{} {} {}\n", name, i, entries_[i].*member);
      }
    }
    return StableHash(index);
  }
  int64_t size() const override {
    return static_cast<int64_t>(entries_.size());
  }

  int64_t num_classes() const override {
    return static_cast<int64_t>(class_names_.size());
  }

  std::string class_name(int64_t class_id) const override {
    return class_names_.at(class_id);
  }

  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    const Entry& entry = entries_[index];
    Sample sample;
    // Latents stand for pictures or for sets of tokens, and say where these
    // lie.
    if ((parts.image && !latents_.of_sets) ||
        ((parts.token_set || parts.voxels) && latents_.channels > 0)) {
      std::string path;
      ASSIGN_OR_RETURN(const std::string bytes,
                       ReadMember(entry, entry.image, kMaxImageBytes, path));
      sample.key = shards_[entry.shard] + ":" + path;
      RETURN_IF_ERROR(WithContext(DecodePicture(bytes, sample), sample.key));
    } else {
      sample.key = fmt::format("{}: the sample at byte {}",
                               shards_[entry.shard], entry.image);
    }
    if (parts.image && entry.picture != kNone) {
      std::string path;
      ASSIGN_OR_RETURN(const std::string bytes,
                       ReadMember(entry, entry.picture, kMaxImageBytes, path));
      absl::StatusOr<Image> image = DecodeImage(bytes);
      if (!image.ok()) {
        return WithContext(image.status(), shards_[entry.shard] + ":" + path);
      }
      sample.image = *std::move(image);
    }
    RETURN_IF_ERROR(WithContext(ReadClass(entry, sample), sample.key));
    if (parts.caption) RETURN_IF_ERROR(ReadCaption(entry, sample));
    if (parts.text) {
      RETURN_IF_ERROR(ReadStates(entry, entry.tokens, ParseTextTokens, sample));
      RETURN_IF_ERROR(ReadStates(entry, entry.pooled, ParsePooledText, sample));
    }
    if (parts.text_layers) {
      RETURN_IF_ERROR(ReadStates(entry, entry.layers, ParseTextLayers, sample));
    }
    return sample;
  }

  absl::StatusOr<PictureSize> ReadSize(int64_t index) const override {
    CHECK(index >= 0 && index < size()) << index;
    const absl::StatusOr<PictureSize> size =
        SizeFrom(entries_[index], kUsualHeaderBytes);
    return size.ok() ? size : SizeFrom(entries_[index], kMaxImageBytes);
  }
  std::vector<absl::StatusOr<PictureSize>> ReadSizes() const override {
    std::vector<NamedFile> files;
    for (const std::string& shard : shards_) {
      files.push_back({fs::path(shard).filename(), shard});
    }
    const std::optional<uint64_t> hash = HashOfFiles(files);
    if (!hash.has_value()) return Dataset::ReadSizes();
    // Of the same shards pictures may be the samples, or latents.
    const uint64_t key = StableHash(fmt::format("{} {}", *hash, IndexHash()));
    return ReadSizesOnce(
        *this, fs::path(shards_.front()).parent_path() / kSizeCacheName, key);
  }

 private:
  // The picture's header, or its latents', from its first `most` bytes.
  absl::StatusOr<PictureSize> SizeFrom(const Entry& entry, int64_t most) const {
    ASSIGN_OR_RETURN(const OpenedMember opened, OpenMember(entry, entry.image));
    ASSIGN_OR_RETURN(const std::string bytes,
                     opened.reader->ReadStart(opened.member, most));
    const absl::StatusOr<PictureSize> size =
        latents_.channels > 0 ? ReadLatentSize(bytes) : ReadImageSize(bytes);
    if (size.ok()) return size;
    return WithContext(size.status(),
                       shards_[entry.shard] + ":" + opened.member.path);
  }

  absl::Status DecodePicture(const std::string& bytes, Sample& sample) const {
    if (latents_.channels > 0) return ParseLatents(bytes, latents_, sample);
    ASSIGN_OR_RETURN(sample.image, DecodeImage(bytes));
    return absl::OkStatus();
  }

  struct OpenedMember {
    std::unique_ptr<TarReader> reader;
    TarMember member;
  };
  absl::StatusOr<OpenedMember> OpenMember(const Entry& entry,
                                          int64_t position) const {
    const std::string& shard = shards_[entry.shard];
    ASSIGN_OR_RETURN(std::unique_ptr<TarReader> reader,
                     TarReader::Open(shard, position));
    ASSIGN_OR_RETURN(std::optional<TarMember> member, reader->Next());
    if (!member.has_value() || member->position != position) {
      return DataLoss("{}: no member at byte {}; has the file changed?", shard,
                      position);
    }
    return OpenedMember{std::move(reader), *std::move(member)};
  }

  // Sets `path` to the member's.
  absl::StatusOr<std::string> ReadMember(const Entry& entry, int64_t position,
                                         int64_t max_bytes,
                                         std::string& path) const {
    ASSIGN_OR_RETURN(const OpenedMember opened, OpenMember(entry, position));
    path = opened.member.path;
    return opened.reader->ReadContent(opened.member, max_bytes);
  }

  absl::Status ReadClass(const Entry& entry, Sample& sample) const {
    sample.class_id = entry.class_id;
    if (entry.class_id == kDamagedClass) {
      return DataLoss("its .cls member does not hold a class number");
    }
    if (num_classes() == 0) return absl::OkStatus();
    if (entry.class_id == kNoClass) {
      return DataLoss("no .cls member, expected one of {} classes",
                      num_classes());
    }
    if (entry.class_id >= num_classes()) {
      return DataLoss("class {}, expected less than {}", entry.class_id,
                      num_classes());
    }
    return absl::OkStatus();
  }

  absl::Status ReadCaption(const Entry& entry, Sample& sample) const {
    std::string path;
    if (entry.caption != kNone) {
      ASSIGN_OR_RETURN(
          const std::string text,
          ReadMember(entry, entry.caption, kMaxCaptionBytes, path));
      absl::StatusOr<std::string> caption = ParseCaption(text);
      if (!caption.ok()) {
        return WithContext(caption.status(), shards_[entry.shard] + ":" + path);
      }
      sample.caption = *std::move(caption);
    } else if (entry.json != kNone) {
      ASSIGN_OR_RETURN(const std::string json,
                       ReadMember(entry, entry.json, kMaxCaptionBytes, path));
      absl::StatusOr<std::string> caption = ParseJsonCaption(json);
      if (!caption.ok()) {
        return WithContext(caption.status(), shards_[entry.shard] + ":" + path);
      }
      sample.caption = *std::move(caption);
    }
    return absl::OkStatus();
  }

  // Text states of the member, if there is one.
  absl::Status ReadStates(const Entry& entry, int64_t member,
                          absl::Status (*parse)(std::string_view, Sample&),
                          Sample& sample) const {
    if (member == kNone) return absl::OkStatus();
    std::string path;
    ASSIGN_OR_RETURN(const std::string bytes,
                     ReadMember(entry, member, kMaxTokensBytes, path));
    return WithContext(parse(bytes, sample), shards_[entry.shard] + ":" + path);
  }

  std::vector<std::string> shards_;
  std::vector<Entry> entries_;
  std::vector<std::string> class_names_;
  LatentFormat latents_;
};

// Notes where a member is, if it is one that samples are made of.
void AddMember(const TarMember& member, std::string_view field,
               const LatentFormat& latents, TarReader& reader, Entry& entry) {
  // Of members with the same path, the first counts.
  const auto set_once = [&member](int64_t& position) {
    if (position == kNone) position = member.position;
  };
  const bool of_latents = latents.channels > 0;
  if (of_latents ? field == "latents" : IsImageEnding(field)) {
    set_once(entry.image);
  } else if (latents.of_sets && IsImageEnding(field)) {
    set_once(entry.picture);
  } else if (field == "txt") {
    set_once(entry.caption);
  } else if (field == "json") {
    set_once(entry.json);
  } else if (field == "tokens") {
    set_once(entry.tokens);
  } else if (field == "pooled") {
    set_once(entry.pooled);
  } else if (field == "layers") {
    set_once(entry.layers);
  } else if (field == "cls" && entry.class_id == kNoClass) {
    const absl::StatusOr<std::string> text =
        reader.ReadContent(member, kMaxClassBytes);
    absl::StatusOr<int32_t> class_id =
        text.ok() ? ParseClassId(*text) : text.status();
    entry.class_id = class_id.ok() ? *class_id : kDamagedClass;
  }
}

// Appends the samples of one shard; its damage is logged and given in `damage`.
// Errors: the file cannot be opened.
absl::Status IndexShard(const std::string& file, uint32_t shard,
                        const LatentFormat& latents,
                        std::vector<Entry>& entries, absl::Status& damage) {
  absl::StatusOr<std::unique_ptr<TarReader>> opened = TarReader::Open(file, 0);
  if (absl::IsDataLoss(opened.status())) {
    damage = opened.status();
    LOG(WARNING) << MessageOf(damage) << "; skipping the whole shard";
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<TarReader> reader, std::move(opened));
  const size_t entries_before = entries.size();
  std::string stem;
  Entry entry{.shard = shard};
  const auto finish_sample = [&] {
    if (entry.image != kNone) entries.push_back(entry);
    entry = Entry{.shard = shard};
  };
  damage = absl::OkStatus();
  while (true) {
    const absl::StatusOr<std::optional<TarMember>> member = reader->Next();
    if (!member.ok()) damage = member.status();
    if (!member.ok() || !member->has_value()) break;
    const auto [member_stem, field] = StemAndField((*member)->path);
    if (member_stem != stem) {
      finish_sample();
      stem = member_stem;
    }
    AddMember(**member, field, latents, *reader, entry);
  }
  finish_sample();
  const size_t samples = entries.size() - entries_before;
  if (!damage.ok()) {
    LOG(WARNING) << MessageOf(damage) << "; using the " << samples
                 << " samples before";
  } else if (reader->damaged_headers() > 0) {
    LOG(WARNING) << file << ": " << reader->damaged_headers()
                 << " damaged tar headers passed over; using " << samples
                 << " samples";
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListShards(
    const std::vector<std::string>& paths) {
  std::vector<std::string> shards;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      shards.push_back(path);
      continue;
    }
    std::vector<std::string> found;
    for (fs::directory_iterator it(path, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (name.ends_with(".tar") && !name.starts_with('.')) {
        found.push_back(path + "/" + name);
      }
    }
    if (error) return NotFound("{}: cannot list: {}", path, error.message());
    if (found.empty()) return NotFound("{}: no .tar file in it", path);
    std::sort(found.begin(), found.end());
    shards.insert(shards.end(), found.begin(), found.end());
  }
  if (shards.empty()) return InvalidArgument("no shard given");
  return shards;
}

// The lines of classes.txt in the first path that is a folder, if any.
absl::StatusOr<std::vector<std::string>> ReadClassNames(
    const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) continue;
    const absl::StatusOr<std::string> text =
        ReadFile(path + "/classes.txt", kMaxClassNamesBytes);
    if (absl::IsNotFound(text.status())) break;
    if (!text.ok()) return text.status();
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      names.emplace_back(absl::StripAsciiWhitespace(line));
    }
    break;
  }
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenWebDataset(
    const WebDatasetOptions& options) {
  if (options.num_classes < 0 || options.num_classes > kMaxWebDatasetClasses) {
    return InvalidArgument("{} classes, expected 0 to {}", options.num_classes,
                           kMaxWebDatasetClasses);
  }
  ASSIGN_OR_RETURN(std::vector<std::string> shards, ListShards(options.paths));
  ASSIGN_OR_RETURN(std::vector<std::string> names,
                   ReadClassNames(options.paths));
  std::vector<Entry> entries;
  absl::Status first_damage;
  for (size_t i = 0; i < shards.size(); ++i) {
    absl::Status damage;
    RETURN_IF_ERROR(IndexShard(shards[i], static_cast<uint32_t>(i),
                               options.latents, entries, damage));
    if (first_damage.ok()) first_damage = damage;
  }
  if (entries.empty() && !first_damage.ok()) return first_damage;
  if (entries.empty()) {
    return NotFound("no sample (a {} member) in {}{}",
                    options.latents.channels > 0 ? ".latents"
                                                 : ".png, .jpg, .jpeg or .webp",
                    shards.front(), shards.size() > 1 ? " or the others" : "");
  }
  int32_t classes = options.num_classes;
  if (classes == 0) classes = static_cast<int32_t>(names.size());
  if (classes == 0) {
    for (const Entry& entry : entries) {
      // A number beyond all reason is a damaged sample, not a million classes.
      if (entry.class_id < kMaxWebDatasetClasses) {
        classes = std::max(classes, entry.class_id + 1);
      }
    }
  }
  for (size_t i = names.size(); i < static_cast<size_t>(classes); ++i) {
    names.push_back(std::to_string(i));
  }
  names.resize(classes);
  return std::make_unique<WebDataset>(std::move(shards), std::move(entries),
                                      std::move(names), options.latents);
}

}  // namespace trireme
