#include "models/data/size_cache.h"

#include <sys/stat.h>

#include <cstring>
#include <string_view>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr std::string_view kMagic = "TRISIZE1";
// No picture that is read has a longer side.
constexpr uint32_t kMaxSide = uint32_t{1} << 26;

// As the file has it; 0x0: the size could not be read.
struct StoredSize {
  uint32_t height = 0;
  uint32_t width = 0;
};

template <typename T>
void AppendValue(const T& value, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T TakeValue(std::string_view& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  bytes.remove_prefix(sizeof(value));
  return value;
}

// What it has before the sizes.
std::string HeaderOf(uint64_t files, int64_t count) {
  std::string header(kMagic);
  AppendValue(files, header);
  AppendValue(static_cast<uint64_t>(count), header);
  return header;
}

// Nothing where it is of others, or damaged.
std::optional<std::vector<StoredSize>> ReadStored(const std::string& path,
                                                  uint64_t files,
                                                  int64_t count) {
  const std::string header = HeaderOf(files, count);
  const size_t expected = header.size() +
                          static_cast<size_t>(count) * sizeof(StoredSize) +
                          sizeof(uint64_t);
  const absl::StatusOr<std::string> content =
      ReadFile(path, static_cast<int64_t>(expected));
  if (!content.ok() || content->size() != expected ||
      !content->starts_with(header)) {
    return std::nullopt;
  }
  std::string_view rest = *content;
  const uint64_t sum = StableHash(rest.substr(0, expected - sizeof(uint64_t)));
  rest.remove_prefix(header.size());
  std::vector<StoredSize> sizes;
  sizes.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto size = TakeValue<StoredSize>(rest);
    if (size.height > kMaxSide || size.width > kMaxSide) return std::nullopt;
    sizes.push_back(size);
  }
  if (TakeValue<uint64_t>(rest) != sum) return std::nullopt;
  return sizes;
}

absl::Status Store(const std::string& path, uint64_t files,
                   std::span<const absl::StatusOr<PictureSize>> sizes) {
  std::string bytes = HeaderOf(files, static_cast<int64_t>(sizes.size()));
  for (const absl::StatusOr<PictureSize>& size : sizes) {
    StoredSize stored;
    if (size.ok()) {
      stored = {.height = static_cast<uint32_t>(size->height),
                .width = static_cast<uint32_t>(size->width)};
    }
    AppendValue(stored, bytes);
  }
  AppendValue(StableHash(bytes), bytes);
  return WriteFileAtomically(path, bytes);
}

}  // namespace

std::optional<uint64_t> HashOfFiles(std::span<const NamedFile> files) {
  std::vector<uint64_t> hashes(files.size());
  bool all = true;
#pragma omp parallel for schedule(dynamic, 64) reduction(&& : all)
  for (size_t i = 0; i < files.size(); ++i) {
    struct stat found;
    if (stat(files[i].path.c_str(), &found) != 0) {
      all = false;
      continue;
    }
    hashes[i] =
        StableHash(fmt::format("{} {} {}.{}", files[i].name, found.st_size,
                               found.st_mtim.tv_sec, found.st_mtim.tv_nsec));
  }
  if (!all) return std::nullopt;
  return StableHash({reinterpret_cast<const char*>(hashes.data()),
                     hashes.size() * sizeof(uint64_t)});
}

std::vector<absl::StatusOr<PictureSize>> ReadSizesOnce(const Dataset& dataset,
                                                       const std::string& path,
                                                       uint64_t files) {
  const std::optional<std::vector<StoredSize>> stored =
      ReadStored(path, files, dataset.size());
  if (!stored.has_value()) {
    std::vector<absl::StatusOr<PictureSize>> sizes =
        dataset.Dataset::ReadSizes();
    const absl::Status written = Store(path, files, sizes);
    if (!written.ok()) {
      LOG(INFO) << "each start reads the sizes of all pictures: "
                << MessageOf(written);
    }
    return sizes;
  }
  std::vector<absl::StatusOr<PictureSize>> sizes;
  sizes.reserve(stored->size());
  for (const StoredSize& size : *stored) {
    if (size.height > 0 && size.width > 0) {
      sizes.emplace_back(PictureSize{size.height, size.width});
    } else {
      sizes.push_back(dataset.ReadSize(static_cast<int64_t>(sizes.size())));
    }
  }
  return sizes;
}

}  // namespace trireme
