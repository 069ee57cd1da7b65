#include "runtime/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "runtime/core/log.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kMaxHeaderBytes = 100 * 1000 * 1000;
constexpr int64_t kLengthBytes = 8;
constexpr char kMetadata[] = "__metadata__";
// The header, a tensor's object, its array.
constexpr int kMaxDepth = 3;

// In the order of the reference implementation's enumeration. It writes the
// last of these first.
struct NamedDType {
  DType dtype;
  std::string_view name;
};
constexpr std::array<NamedDType, 8> kDTypes = {{{DType::kBool, "BOOL"},
                                                {DType::kUint8, "U8"},
                                                {DType::kBFloat16, "BF16"},
                                                {DType::kFloat16, "F16"},
                                                {DType::kInt32, "I32"},
                                                {DType::kFloat32, "F32"},
                                                {DType::kFloat64, "F64"},
                                                {DType::kInt64, "I64"}}};

// The place of `dtype` in kDTypes.
size_t RankOf(DType dtype) {
  size_t rank = 0;
  while (rank < kDTypes.size() && kDTypes[rank].dtype != dtype) ++rank;
  CHECK_LT(rank, kDTypes.size());
  return rank;
}

std::optional<DType> FromFormatName(std::string_view name) {
  for (const NamedDType& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

int64_t BytesOf(const SafetensorsEntry& entry) {
  return entry.shape.num_elements() * DTypeSize(entry.dtype);
}

// The text of a hostile header as an error may show it.
std::string Shortened(const std::string& text) {
  constexpr size_t kLongest = 200;
  // Control characters would reach the terminal.
  return absl::Utf8SafeCEscape(absl::string_view(text).substr(0, kLongest)) +
         (text.size() <= kLongest ? "" : "...");
}

// A non-negative integer that fits, or nothing.
std::optional<int64_t> AsSize(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto size = value.get<uint64_t>();
  if (size > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(size);
}

// The header as JSON. A name may come once only (the parser would keep the
// last silently), and nothing nests deeper than a header does.
absl::StatusOr<Json> ParseJson(std::string_view text) {
  absl::Status status;
  std::array<std::set<std::string>, kMaxDepth + 1> names;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (!status.ok()) return false;
    if (event == Json::parse_event_t::object_start ||
        event == Json::parse_event_t::array_start) {
      if (depth >= kMaxDepth) {
        status = DataLoss("the header nests deeper than {}", kMaxDepth);
        return false;
      }
      names[depth + 1].clear();
    } else if (event == Json::parse_event_t::key &&
               !names[depth].insert(parsed.get<std::string>()).second) {
      status = DataLoss("'{}' comes twice",
                        Shortened(parsed.get_ref<const std::string&>()));
    }
    return status.ok();
  };
  Json json = Json::parse(text.begin(), text.end(), watch,
                          /*allow_exceptions=*/false);
  RETURN_IF_ERROR(status);
  if (!json.is_object()) return DataLoss("the header is not a JSON object");
  return json;
}

absl::StatusOr<std::map<std::string, std::string>> ParseMetadata(
    const Json& value) {
  if (!value.is_object()) return DataLoss("{} is not an object", kMetadata);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return DataLoss("{}: '{}' is not a string", kMetadata, Shortened(key));
    }
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// One tensor's object; `offset` of the result counts from the data's begin.
absl::StatusOr<SafetensorsFile::Entry> ParseEntry(const Json& value,
                                                  int64_t data_bytes) {
  const auto is_array = [&](const char* key) {
    return value.contains(key) && value[key].is_array();
  };
  if (!value.is_object() || !value.contains("dtype") ||
      !value["dtype"].is_string() || !is_array("shape") ||
      !is_array("data_offsets") || value["data_offsets"].size() != 2) {
    return DataLoss("expected dtype, shape and two data_offsets, found {}",
                    Shortened(value.dump()));
  }
  SafetensorsFile::Entry entry;
  const std::string name = value["dtype"].get<std::string>();
  const std::optional<DType> dtype = FromFormatName(name);
  if (!dtype.has_value()) {
    std::vector<std::string_view> known;
    for (const NamedDType& entry : kDTypes) known.push_back(entry.name);
    return DataLoss("found dtype '{}', expected one of {}", Shortened(name),
                    fmt::join(known, ", "));
  }
  entry.dtype = *dtype;
  const Json& shape = value["shape"];
  if (shape.size() > Shape::kMaxRank) {
    return DataLoss("found {} dims, expected at most {}", shape.size(),
                    Shape::kMaxRank);
  }
  // `most` counts an extent of zero as one: no product of some extents may
  // overflow, even where that of all is zero.
  int64_t most = DTypeSize(*dtype);
  for (const Json& extent : shape) {
    const std::optional<int64_t> size = AsSize(extent);
    if (!size.has_value() ||
        __builtin_mul_overflow(most, std::max<int64_t>(*size, 1), &most)) {
      return DataLoss("impossible shape {}", Shortened(shape.dump()));
    }
    entry.shape.push_back(*size);
  }
  entry.bytes = entry.shape.num_elements() * DTypeSize(*dtype);
  const Json& offsets = value["data_offsets"];
  const std::optional<int64_t> begin = AsSize(offsets[0]);
  const std::optional<int64_t> end = AsSize(offsets[1]);
  if (!begin.has_value() || !end.has_value() || *begin > *end ||
      *end > data_bytes || *end - *begin != entry.bytes) {
    return DataLoss(
        "found data_offsets {}, expected {} bytes ({} {}) within {}",
        Shortened(offsets.dump()), entry.bytes, DTypeName(*dtype),
        entry.shape.ToString(), data_bytes);
  }
  entry.offset = *begin;
  return entry;
}

// The spans cover the data exactly: no hole, no overlap, nothing after them.
absl::Status CheckSpans(std::vector<std::pair<int64_t, int64_t>> spans,
                        int64_t data_bytes) {
  std::sort(spans.begin(), spans.end());
  int64_t covered = 0;
  for (const auto& [begin, end] : spans) {
    if (begin != covered) {
      return DataLoss("bytes {} to {} of the data belong to {}",
                      std::min(begin, covered), std::max(begin, covered),
                      begin < covered ? "two tensors" : "no tensor");
    }
    covered = end;
  }
  if (covered != data_bytes) {
    return DataLoss("found {} bytes of data, expected {}", data_bytes, covered);
  }
  return absl::OkStatus();
}

// The header's text, padded. Its order is that of `entries`.
absl::StatusOr<std::string> HeaderText(
    const std::vector<SafetensorsEntry>& entries,
    const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  std::set<std::string> names = {kMetadata};
  for (const SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      return InvalidArgument("tensor name '{}' is taken", entry.name);
    }
    const int64_t end = offset + BytesOf(entry);
    header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        entry.name,
        nlohmann::ordered_json{
            {"dtype", kDTypes[RankOf(entry.dtype)].name},
            {"shape", std::vector<int64_t>(entry.shape.dims().begin(),
                                           entry.shape.dims().end())},
            {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument("a name or a metadata is not UTF-8: {}",
                           error.what());
  }
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  if (static_cast<int64_t>(text.size()) > kMaxHeaderBytes) {
    return InvalidArgument("found a header of {} bytes, expected at most {}",
                           text.size(), kMaxHeaderBytes);
  }
  return text;
}

}  // namespace

bool ComesBefore(const SafetensorsEntry& a, const SafetensorsEntry& b) {
  const size_t rank_a = RankOf(a.dtype);
  const size_t rank_b = RankOf(b.dtype);
  return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<SafetensorsEntry> entries,
    const std::map<std::string, std::string>& metadata) {
  std::sort(entries.begin(), entries.end(), &ComesBefore);
  const absl::StatusOr<std::string> text = HeaderText(entries, metadata);
  RETURN_IF_ERROR(WithContext(text.status(), path));
  const uint64_t length = text->size();
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(std::move(file), std::move(entries)));
  RETURN_IF_ERROR(writer->Write(
      std::string_view(reinterpret_cast<const char*>(&length), kLengthBytes)));
  RETURN_IF_ERROR(writer->Write(*text));
  writer->SkipComplete();
  return writer;
}

absl::Status SafetensorsWriter::Write(std::string_view bytes) {
  checksum_.Update(bytes);
  return file_.Append(bytes);
}

void SafetensorsWriter::SkipComplete() {
  while (next_ < entries_.size() && written_ == BytesOf(entries_[next_])) {
    ++next_;
    written_ = 0;
  }
}

absl::Status SafetensorsWriter::Append(const std::string& name,
                                       const void* data, int64_t bytes) {
  // An empty tensor was passed over.
  if (bytes == 0) return absl::OkStatus();
  CHECK_LT(next_, entries_.size());
  CHECK_EQ(entries_[next_].name, name);
  CHECK_LE(written_ + bytes, BytesOf(entries_[next_]));
  written_ += bytes;
  SkipComplete();
  return Write(std::string_view(static_cast<const char*>(data), bytes));
}

absl::StatusOr<CheckpointFile> SafetensorsWriter::Commit() {
  CHECK_EQ(next_, entries_.size());
  RETURN_IF_ERROR(file_.Commit());
  return checksum_.Result();
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  // Not blocking: a FIFO must not stop the caller before it is refused.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return StatusOf(errno == ENOENT ? absl::StatusCode::kNotFound
                                    : absl::StatusCode::kUnavailable,
                    "{}: cannot open: {}", path,
                    std::generic_category().message(errno));
  }
  struct stat info {};
  void* mapping = MAP_FAILED;
  int reason = 0;
  if (fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode) &&
      info.st_size >= kLengthBytes) {
    mapping =
        mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    reason = errno;
  }
  close(descriptor);
  if (mapping == MAP_FAILED && reason != 0) {
    return Unavailable("{}: cannot map: {}", path,
                       std::generic_category().message(reason));
  }
  if (mapping == MAP_FAILED) {
    return DataLoss("{}: found {}, expected a safetensors file", path,
                    S_ISREG(info.st_mode)
                        ? fmt::format("{} bytes", info.st_size)
                        : "no regular file");
  }
  std::unique_ptr<SafetensorsFile> file(
      new SafetensorsFile(path, mapping, info.st_size));
  RETURN_IF_ERROR(WithContext(file->ParseHeader(), path));
  return file;
}

SafetensorsFile::~SafetensorsFile() { munmap(mapping_, size_); }

absl::Status SafetensorsFile::ParseHeader() {
  uint64_t length;
  std::memcpy(&length, mapping_, kLengthBytes);
  const int64_t longest = std::min(kMaxHeaderBytes, size_ - kLengthBytes);
  if (length > static_cast<uint64_t>(longest)) {
    return DataLoss(
        "found a header of {} bytes, expected at most {}; this is no "
        "safetensors file, or a part of one",
        length, longest);
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
  const int64_t data_bytes = size_ - data_begin;
  ASSIGN_OR_RETURN(const Json header,
                   ParseJson({static_cast<const char*>(mapping_) + kLengthBytes,
                              static_cast<size_t>(length)}));
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      ASSIGN_OR_RETURN(metadata_, ParseMetadata(value));
      continue;
    }
    absl::StatusOr<Entry> entry = ParseEntry(value, data_bytes);
    if (!entry.ok()) {
      return WithContext(entry.status(),
                         fmt::format("tensor '{}'", Shortened(name)));
    }
    spans.emplace_back(entry->offset, entry->offset + entry->bytes);
    entry->offset += data_begin;
    tensors_[name] = *entry;
  }
  return CheckSpans(std::move(spans), data_bytes);
}

absl::StatusOr<std::span<const std::byte>> SafetensorsFile::Data(
    const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    std::vector<std::string> names;
    for (const auto& [existing, entry] : tensors_) names.push_back(existing);
    const std::string nearest = NearestName(name, names);
    return NotFound("{}: no tensor '{}'{}", path_, name,
                    nearest.empty()
                        ? std::string()
                        : fmt::format("; the nearest is '{}'", nearest));
  }
  return std::span<const std::byte>(
      static_cast<const std::byte*>(mapping_) + found->second.offset,
      found->second.bytes);
}

absl::StatusOr<Tensor> ReadTensor(const SafetensorsFile& file,
                                  const std::string& name, Device& device,
                                  MemoryCategory category) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> data, file.Data(name));
  const SafetensorsFile::Entry& entry = file.tensors().at(name);
  const Tensor tensor =
      Tensor::Empty(device, entry.shape, entry.dtype, category, name);
  // A byte other than 0 and 1 in a bool would be undefined behaviour.
  if (entry.dtype == DType::kBool &&
      std::any_of(data.begin(), data.end(),
                  [](std::byte value) { return value > std::byte{1}; })) {
    return DataLoss("{}: tensor '{}': found a bool that is neither 0 nor 1",
                    file.path(), name);
  }
  if (!device.dry() && !data.empty()) {
    device.stream().CopyBytes(tensor.raw_data(), data.data(),
                              static_cast<int64_t>(data.size()));
    device.Synchronize();
  }
  return tensor;
}

}  // namespace trireme
