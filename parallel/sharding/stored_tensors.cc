#include "parallel/sharding/stored_tensors.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "parallel/grid/shard_copies.h"
#include "runtime/checkpoint/tensor_bytes.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr int64_t kMaxIndexBytes = int64_t{1} << 30;

constexpr std::string_view kSuffix = ".safetensors";

// Of "model.safetensors": "model".
std::string KindOf(std::string_view name) {
  if (name.ends_with(kSuffix)) name.remove_suffix(kSuffix.size());
  return std::string(name);
}
std::string IndexOf(std::string_view name) {
  return KindOf(name) + ".index.json";
}
std::string NameOfRank(std::string_view name, int rank, int size) {
  return fmt::format("{}-{:05}-of-{:05}{}", KindOf(name), rank + 1, size,
                     kSuffix);
}

bool IsWhole(const TensorPart& part) {
  return part.shards.empty() && part.begin == 0 &&
         part.end == part.global_shape.num_elements();
}

// A rank's parts as the index lists them, by tensor.
Json Listed(const StoredFile& file) {
  Json tensors = Json::object();
  for (const TensorPart& part : file.parts) {
    Json shards = Json::array();
    for (const ShardedDim& shard : part.shards) {
      shards.push_back({shard.dim, shard.parts, shard.index});
    }
    const auto dims = part.global_shape.dims();
    tensors[part.name] = {
        {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
        {"parts", Json::array({{{"file", file.name},
                                {"shards", shards},
                                {"begin", part.begin},
                                {"end", part.end}}})}};
  }
  return tensors;
}

// Of the lists of all ranks. Errors: parts that do not make up a tensor.
absl::StatusOr<std::string> IndexText(const std::vector<std::string>& lists) {
  Json tensors = Json::object();
  for (const std::string& text : lists) {
    const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    CHECK(list.is_object()) << "a rank sent a broken list of tensors";
    for (const auto& [name, tensor] : list.items()) {
      if (!tensors.contains(name)) {
        tensors[name] = tensor;
      } else {
        tensors[name]["parts"].push_back(tensor["parts"][0]);
      }
    }
  }
  for (const auto& [name, tensor] : tensors.items()) {
    int64_t found = 0, expected = 1;
    for (const Json& part : tensor["parts"]) {
      found += part["end"].get<int64_t>() - part["begin"].get<int64_t>();
    }
    for (const Json& dim : tensor["shape"]) expected *= dim.get<int64_t>();
    if (found != expected) {
      return FailedPrecondition(
          "tensor '{}': the ranks bring {} elements, expected {}; do two "
          "stages use one name?",
          name, found, expected);
    }
  }
  return Json{{"version", kVersion}, {"tensors", std::move(tensors)}}.dump(1) +
         "\n";
}

std::optional<int64_t> AsSize(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto size = value.get<uint64_t>();
  if (size > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(size);
}

std::optional<int64_t> SizeOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? std::nullopt : AsSize(*found);
}

// Of [4, 8]; nothing where it is none, has more dims than a shape, or more
// elements than there are addresses.
std::optional<Shape> ShapeOf(const Json& entry) {
  const auto found = entry.find("shape");
  if (found == entry.end() || !found->is_array() ||
      found->size() > Shape::kMaxRank) {
    return std::nullopt;
  }
  std::vector<int64_t> dims;
  int64_t elements = 1;
  for (const Json& dim : *found) {
    const std::optional<int64_t> size = AsSize(dim);
    if (!size.has_value() ||
        __builtin_mul_overflow(elements, std::max<int64_t>(*size, 1),
                               &elements)) {
      return std::nullopt;
    }
    dims.push_back(*size);
  }
  return Shape(dims);
}

// Of [[dim, parts, index], ..], which cut `shape`; `elements`: of the shard.
std::optional<std::vector<ShardedDim>> ShardsOf(const Json& part,
                                                const Shape& shape,
                                                int64_t& elements) {
  const auto found = part.find("shards");
  if (found == part.end() || !found->is_array()) return std::nullopt;
  std::vector<int64_t> dims(shape.dims().begin(), shape.dims().end());
  std::vector<ShardedDim> shards;
  for (const Json& shard : *found) {
    if (!shard.is_array() || shard.size() != 3) return std::nullopt;
    const auto dim = AsSize(shard[0]), parts = AsSize(shard[1]),
               index = AsSize(shard[2]);
    if (!dim || !parts || !index || *dim >= static_cast<int64_t>(dims.size()) ||
        *parts < 1 || *parts > INT32_MAX || *index >= *parts ||
        dims[*dim] % *parts != 0) {
      return std::nullopt;
    }
    dims[*dim] /= *parts;
    // The axis says nothing of where elements lie.
    shards.push_back({Axis::kTensor, static_cast<int>(*dim),
                      static_cast<int>(*parts), static_cast<int>(*index)});
  }
  elements = Shape(dims).num_elements();
  return shards;
}

// The elements that shards leave of a tensor: from first to last in each
// dimension.
using Box = std::vector<std::pair<int64_t, int64_t>>;

Box BoxOf(const Shape& shape, const std::vector<ShardedDim>& shards) {
  Box box;
  for (const int64_t size : shape.dims()) box.emplace_back(0, size);
  for (const ShardedDim& shard : shards) {
    auto& [begin, end] = box[shard.dim];
    const int64_t size = (end - begin) / shard.parts;
    begin += shard.index * size;
    end = begin + size;
  }
  return box;
}

bool Meet(const Box& a, const Box& b) {
  for (size_t dim = 0; dim < a.size(); ++dim) {
    if (a[dim].second <= b[dim].first || b[dim].second <= a[dim].first) {
      return false;
    }
  }
  return true;
}

}  // namespace

SafetensorsEntry EntryOf(const TensorPart& part) {
  return {part.name, part.local.dtype(),
          IsWhole(part) ? part.global_shape : part.local.shape()};
}

std::vector<TensorPart> WrittenParts(const ProcessGrid& grid,
                                     std::vector<TensorPart> parts) {
  std::erase_if(parts, [&](const TensorPart& part) {
    return !IsFirstCopy(part.shards, grid, part.data_shards);
  });
  std::sort(parts.begin(), parts.end(),
            [](const TensorPart& a, const TensorPart& b) {
              return ComesBefore(EntryOf(a), EntryOf(b));
            });
  return parts;
}

absl::StatusOr<StoredFile> LayOutStoredFile(ParallelContext& context,
                                            const std::string& name,
                                            std::vector<TensorPart> parts) {
  Communicators& communicators = context.communicators();
  Control& control = communicators.control();
  const int rank = communicators.world().rank();
  StoredFile file;
  file.parts = WrittenParts(context.grid(), std::move(parts));
  std::vector<double> writers = {file.parts.empty() ? 0.0 : 1.0};
  control.Sum(writers, "ranks that write");
  const bool several = writers[0] > 1;
  if (!file.parts.empty()) {
    file.name =
        several ? NameOfRank(name, rank, communicators.world().size()) : name;
  }
  const std::vector<std::string> lists =
      control.Gather(Listed(file).dump(), "tensor lists");
  absl::StatusOr<std::string> index = "";
  if (rank == 0) index = IndexText(lists);
  RETURN_IF_ERROR(control.Agree(index.status(), "tensor list verdict"));
  if (several && rank == 0) {
    file.index_name = IndexOf(name);
    file.index = *std::move(index);
  }
  return file;
}

std::string StoredTensors::IndexName(const std::string& name) {
  return IndexOf(name);
}

bool StoredTensors::Exist(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) ||
         std::filesystem::exists(IndexOf(path), error);
}

absl::StatusOr<std::unique_ptr<StoredTensors>> StoredTensors::Open(
    const std::string& path) {
  const std::filesystem::path parent =
      std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  const std::string index = IndexOf(path);
  std::error_code error;
  if (!std::filesystem::exists(index, error)) {
    std::unique_ptr<StoredTensors> stored(new StoredTensors(folder, path));
    RETURN_IF_ERROR(
        stored->OpenFile(std::filesystem::path(path).filename()).status());
    return stored;
  }
  std::unique_ptr<StoredTensors> stored(new StoredTensors(folder, index));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(index, kMaxIndexBytes));
  RETURN_IF_ERROR(WithContext(stored->ParseIndex(text), index));
  return stored;
}

absl::Status StoredTensors::ParseIndex(const std::string& text) {
  indexed_ = true;
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || SizeOf(json, "version") != kVersion ||
      !json.contains("tensors") || !json["tensors"].is_object()) {
    return DataLoss("expected an object with version {} and tensors", kVersion);
  }
  for (const auto& [name, value] : json["tensors"].items()) {
    const auto broken = [&name = name](std::string_view what) {
      return DataLoss("tensor '{}': expected {}", name, what);
    };
    if (!value.is_object()) return broken("an object");
    const std::optional<Shape> shape = ShapeOf(value);
    if (!shape.has_value()) return broken("a shape");
    const auto parts = value.find("parts");
    if (parts == value.end() || !parts->is_array()) return broken("parts");
    Entry& entry = index_[name];
    entry.shape = *shape;
    for (const Json& part : *parts) {
      if (!part.is_object() || !part.contains("file") ||
          !part["file"].is_string()) {
        return broken("parts with a file");
      }
      Part& added = entry.parts.emplace_back();
      added.file = part["file"].get<std::string>();
      if (added.file.find('/') != std::string::npos) {
        return broken("files of the checkpoint's folder");
      }
      int64_t elements = 0;
      const auto shards = ShardsOf(part, *shape, elements);
      if (!shards.has_value()) return broken("shards that cut its shape");
      added.shards = *shards;
      const auto begin = SizeOf(part, "begin"), end = SizeOf(part, "end");
      if (!begin || !end || *begin > *end || *end > elements) {
        return broken("a begin and an end in its shard");
      }
      added.begin = *begin;
      added.end = *end;
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> StoredTensors::Names() const {
  std::vector<std::string> names;
  if (indexed_) {
    for (const auto& [name, entry] : index_) names.push_back(name);
  } else {
    for (const auto& [name, entry] : files_.begin()->second->tensors()) {
      names.push_back(name);
    }
  }
  return names;
}

absl::StatusOr<const SafetensorsFile*> StoredTensors::OpenFile(
    const std::string& name) const {
  auto& file = files_[name];
  if (file == nullptr) {
    ASSIGN_OR_RETURN(file, SafetensorsFile::Open(folder_ + "/" + name));
  }
  return file.get();
}

absl::StatusOr<StoredTensors::Whole> StoredTensors::Assemble(
    const std::string& name, const Entry& entry) const {
  Whole whole;
  whole.shape = entry.shape;
  for (const Part& part : entry.parts) {
    ASSIGN_OR_RETURN(const SafetensorsFile* file, OpenFile(part.file));
    ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, file->Data(name));
    const SafetensorsFile::Entry& found = file->tensors().at(name);
    if (&part == &entry.parts.front()) whole.dtype = found.dtype;
    if (found.dtype != whole.dtype ||
        found.shape.num_elements() != part.end - part.begin) {
      return DataLoss(
          "{}: tensor '{}': found {} {}, expected {} elements of {}",
          file->path(), name, DTypeName(found.dtype), found.shape.ToString(),
          part.end - part.begin, DTypeName(whole.dtype));
    }
    const int64_t size = DTypeSize(found.dtype);
    ForEachLocalRun(entry.shape, part.shards,
                    [&](int64_t local, int64_t global, int64_t count) {
                      const int64_t first = std::max(local, part.begin);
                      const int64_t last = std::min(local + count, part.end);
                      if (first >= last) return;
                      whole.runs.push_back(
                          {.begin = global + first - local,
                           .bytes = bytes.subspan((first - part.begin) * size,
                                                  (last - first) * size)});
                    });
  }
  std::sort(whole.runs.begin(), whole.runs.end(),
            [](const Run& a, const Run& b) { return a.begin < b.begin; });
  int64_t next = 0;
  for (const StoredTensors::Run& run : whole.runs) {
    if (run.begin < next) {
      return DataLoss("{}: tensor '{}': its parts repeat element {}", path_,
                      name, run.begin);
    }
    next = run.begin +
           static_cast<int64_t>(run.bytes.size()) / DTypeSize(whole.dtype);
  }
  return whole;
}

int64_t StoredTensors::Whole::CountFrom(int64_t begin, int64_t count) const {
  auto run = std::upper_bound(
      runs.begin(), runs.end(), begin,
      [](int64_t at, const Run& run) { return at < run.begin; });
  if (run == runs.begin()) return 0;
  int64_t next = begin;
  for (--run; run != runs.end() && run->begin <= next; ++run) {
    if (next >= begin + count) break;
    next = std::max(next, run->begin + static_cast<int64_t>(run->bytes.size()) /
                                           DTypeSize(dtype));
  }
  return std::min(next - begin, count);
}

absl::StatusOr<const StoredTensors::Entry*> StoredTensors::EntryOfName(
    const std::string& name) const {
  const auto entry = index_.find(name);
  if (entry != index_.end()) return &entry->second;
  return NotFound("{}: no tensor '{}'", path_, name);
}

absl::StatusOr<const StoredTensors::Whole*> StoredTensors::Find(
    const std::string& name) const {
  if (found_ != nullptr && found_name_ == name) return found_.get();
  Whole whole;
  if (indexed_) {
    ASSIGN_OR_RETURN(const Entry* entry, EntryOfName(name));
    ASSIGN_OR_RETURN(whole, Assemble(name, *entry));
    const int64_t elements = whole.shape.num_elements();
    const int64_t found = whole.CountFrom(0, elements);
    if (found != elements) {
      return DataLoss("{}: tensor '{}': its parts leave out element {}", path_,
                      name, found);
    }
  } else {
    const SafetensorsFile& file = *files_.begin()->second;
    ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, file.Data(name));
    whole = {.dtype = file.tensors().at(name).dtype,
             .shape = file.tensors().at(name).shape,
             .runs = {{.begin = 0, .bytes = bytes}}};
  }
  found_name_ = name;
  found_ = std::make_unique<Whole>(std::move(whole));
  return found_.get();
}

std::vector<StoredTensors::Part> StoredTensors::PartsNear(
    const Entry& entry, const TensorPart& wanted) {
  std::vector<Part> near = entry.parts;
  const Box box = BoxOf(entry.shape, wanted.shards);
  std::erase_if(near, [&](const Part& part) {
    const Box other = BoxOf(entry.shape, part.shards);
    // Ranges of one shard compare; those of others may lie anywhere in it.
    if (other == box) {
      return part.end <= wanted.begin || wanted.end <= part.begin;
    }
    return !Meet(other, box);
  });
  return near;
}

absl::StatusOr<std::vector<std::string>> StoredTensors::FilesOf(
    const TensorPart& part) const {
  if (!indexed_) return std::vector<std::string>{files_.begin()->first};
  ASSIGN_OR_RETURN(const Entry* entry, EntryOfName(part.name));
  std::set<std::string> names;
  if (entry->shape != part.global_shape) return std::vector<std::string>();
  for (const Part& near : PartsNear(*entry, part)) names.insert(near.file);
  return std::vector<std::string>(names.begin(), names.end());
}

absl::StatusOr<const StoredTensors::Whole*> StoredTensors::FindNear(
    const TensorPart& part) const {
  if (!indexed_) return Find(part.name);
  ASSIGN_OR_RETURN(const Entry* entry, EntryOfName(part.name));
  // Read refuses it.
  if (entry->shape != part.global_shape) return Find(part.name);
  ASSIGN_OR_RETURN(Whole near,
                   Assemble(part.name, {.shape = entry->shape,
                                        .parts = PartsNear(*entry, part)}));
  absl::Status status;
  ForEachLocalRun(part.global_shape, part.shards,
                  [&](int64_t at, int64_t global, int64_t count) {
                    const int64_t first = std::max(at, part.begin);
                    const int64_t last = std::min(at + count, part.end);
                    if (first >= last) return;
                    const int64_t begin = global + first - at;
                    const int64_t found = near.CountFrom(begin, last - first);
                    if (found == last - first) return;
                    status.Update(DataLoss(
                        "{}: tensor '{}': its parts leave out element {}",
                        path_, part.name, begin + found));
                  });
  RETURN_IF_ERROR(status);
  found_name_.clear();
  found_ = std::make_unique<Whole>(std::move(near));
  return found_.get();
}

absl::Status StoredTensors::Read(const TensorPart& part) const {
  if (part.begin == part.end) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Whole* whole, FindNear(part));
  if (whole->shape != part.global_shape || whole->dtype != part.local.dtype()) {
    return FailedPrecondition(
        "{}: tensor '{}': found {} {}, expected {} {}", path_, part.name,
        DTypeName(whole->dtype), whole->shape.ToString(),
        DTypeName(part.local.dtype()), part.global_shape.ToString());
  }
  if (part.local.device().dry()) return absl::OkStatus();
  CpuDevice host(std::numeric_limits<int64_t>::max());
  // The host fills what it reaches.
  const Tensor filled =
      part.local.device().on_host()
          ? part.local
          : Tensor::Empty(host, part.local.shape(), part.local.dtype(),
                          MemoryCategory::kCommunication, "part that is read");
  filled.device().Synchronize();
  const int64_t size = DTypeSize(whole->dtype);
  ForEachLocalRun(part.global_shape, part.shards,
                  [&](int64_t at, int64_t global, int64_t count) {
                    const int64_t first = std::max(at, part.begin);
                    const int64_t last = std::min(at + count, part.end);
                    if (first >= last) return;
                    whole->ForEachPiece(
                        global + first - at, last - first,
                        [&](std::span<const std::byte> bytes, int64_t done) {
                          SetBytesFromFile(filled,
                                           (first - part.begin + done) * size,
                                           bytes);
                        });
                  });
  if (&filled.device() == &host) part.local.CopyFrom(filled);
  return absl::OkStatus();
}

}  // namespace trireme
