#include "models/data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds of what a header may announce, before memory is taken for it.
constexpr uint32_t kMaxSide = 4096;
constexpr uint64_t kMaxBytes = uint64_t{8} << 30;

struct GzCloser {
  void operator()(gzFile_s* file) const { gzclose(file); }
};
using GzFile = std::unique_ptr<gzFile_s, GzCloser>;

// Sizes of the dimensions and the bytes of one file.
struct IdxArray {
  std::string path;
  std::vector<uint32_t> sizes;
  std::vector<uint8_t> bytes;
};

absl::StatusOr<std::string> FindFile(const std::string& folder,
                                     std::string_view name) {
  const std::string path = fmt::format("{}/{}", folder, name);
  for (const std::string& candidate : {path, path + ".gz"}) {
    std::error_code error;
    if (std::filesystem::is_regular_file(candidate, error)) return candidate;
  }
  return NotFound("{}: no such file, nor with .gz; expected an IDX file", path);
}

// Reads `size` bytes or fails; zlib passes uncompressed files through.
absl::Status ReadExactly(gzFile_s* file, const std::string& path, uint8_t* out,
                         uint64_t size) {
  uint64_t done = 0;
  while (done < size) {
    const auto piece =
        static_cast<unsigned>(std::min<uint64_t>(size - done, 1 << 24));
    const int got = gzread(file, out + done, piece);
    if (got < 0) {
      int code = 0;
      return DataLoss("{}: {}", path, gzerror(file, &code));
    }
    if (got == 0) {
      return DataLoss("{}: ends after {} of {} expected bytes", path, done,
                      size);
    }
    done += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

uint32_t BigEndian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 |
         uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

absl::StatusOr<IdxArray> ReadIdx(const std::string& path, size_t dimensions) {
  const GzFile file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) return NotFound("{}: cannot be opened", path);
  std::array<uint8_t, 16> header;
  RETURN_IF_ERROR(
      ReadExactly(file.get(), path, header.data(), 4 + 4 * dimensions));
  const uint32_t expected_magic = 0x800 + static_cast<uint32_t>(dimensions);
  const uint32_t magic = BigEndian(header.data());
  if (magic != expected_magic) {
    return InvalidArgument(
        "{}: magic number is {:#010x}, expected {:#010x} (bytes in {} "
        "dimensions)",
        path, magic, expected_magic, dimensions);
  }
  IdxArray array{.path = path};
  uint64_t bytes = 1;
  for (size_t d = 0; d < dimensions; ++d) {
    const uint32_t size = BigEndian(header.data() + 4 + 4 * d);
    // The first dimension counts samples, the others are sides of a picture.
    if (size == 0 || (d > 0 && size > kMaxSide)) {
      return InvalidArgument("{}: size of dimension {} is {}, expected 1 to {}",
                             path, d, size, d == 0 ? UINT32_MAX : kMaxSide);
    }
    array.sizes.push_back(size);
    bytes *= size;  // At most 2^32 · 2^12 · 2^12.
  }
  if (bytes > kMaxBytes) {
    return InvalidArgument("{}: announces {} bytes, expected at most {}", path,
                           bytes, kMaxBytes);
  }
  // Grows with what is really there, so that a false header costs nothing.
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t piece = std::min<uint64_t>(bytes - done, 1 << 20);
    array.bytes.resize(done + piece);
    RETURN_IF_ERROR(
        ReadExactly(file.get(), path, array.bytes.data() + done, piece));
    done += piece;
  }
  uint8_t extra = 0;
  if (gzread(file.get(), &extra, 1) != 0) {
    return DataLoss("{}: more than the {} bytes its header announces", path,
                    bytes);
  }
  return array;
}

class IdxDataset : public Dataset {
 public:
  IdxDataset(IdxArray images, IdxArray labels,
             std::vector<std::string> class_names)
      : images_(std::move(images)),
        labels_(std::move(labels)),
        class_names_(std::move(class_names)) {}

  int64_t size() const override { return images_.sizes[0]; }
  int64_t num_classes() const override {
    return static_cast<int64_t>(class_names_.size());
  }
  std::string class_name(int64_t class_id) const override {
    CHECK(class_id >= 0 && class_id < num_classes()) << class_id;
    return class_names_[class_id];
  }

  uint64_t IndexHash() const override {
    return StableHash(
        std::string_view(reinterpret_cast<const char*>(labels_.bytes.data()),
                         labels_.bytes.size()));
  }

  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    Sample sample;
    sample.class_id = labels_.bytes[index];
    sample.key = fmt::format("{:08}", index);
    if (parts.caption) sample.caption = class_name(sample.class_id);
    if (!parts.image) return sample;
    const auto height = static_cast<int>(images_.sizes[1]);
    const auto width = static_cast<int>(images_.sizes[2]);
    sample.image = FilledImage(width, height, 1, 0);
    const int64_t pixels = int64_t{height} * width;
    std::copy_n(images_.bytes.begin() + index * pixels, pixels,
                sample.image.pixels.begin());
    return sample;
  }

 private:
  IdxArray images_;  // [count, rows, columns]
  IdxArray labels_;  // [count]
  std::vector<std::string> class_names_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenIdx(
    const std::string& folder, std::string_view split,
    std::vector<std::string> class_names) {
  if (split != "train" && split != "test") {
    return InvalidArgument(
        "split: found \"{}\", expected \"train\" or \"test\"", split);
  }
  const std::string_view prefix = split == "train" ? "train" : "t10k";
  ASSIGN_OR_RETURN(
      const std::string images_path,
      FindFile(folder, fmt::format("{}-images-idx3-ubyte", prefix)));
  ASSIGN_OR_RETURN(
      const std::string labels_path,
      FindFile(folder, fmt::format("{}-labels-idx1-ubyte", prefix)));
  ASSIGN_OR_RETURN(IdxArray images, ReadIdx(images_path, 3));
  ASSIGN_OR_RETURN(IdxArray labels, ReadIdx(labels_path, 1));
  if (images.sizes[0] != labels.sizes[0]) {
    return InvalidArgument("{}: {} labels, expected {} as {} has pictures",
                           labels_path, labels.sizes[0], images.sizes[0],
                           images_path);
  }
  const int largest =
      *std::max_element(labels.bytes.begin(), labels.bytes.end());
  if (class_names.empty()) {
    for (int i = 0; i <= largest; ++i)
      class_names.push_back(fmt::format("{}", i));
  } else if (largest >= static_cast<int>(class_names.size())) {
    return InvalidArgument("{}: label {}, but {} class names are given",
                           labels_path, largest, class_names.size());
  }
  return std::make_unique<IdxDataset>(std::move(images), std::move(labels),
                                      std::move(class_names));
}

}  // namespace trireme
