// The safetensors format: u64 little-endian header length, a JSON header
// {name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {..}}
// padded with spaces to a multiple of 8, then the tensors, row-major, without
// holes. The writer's order is that of the reference implementation: I64, F64,
// F32, I32, F16, BF16, U8, BOOL (descending element size), then name.
//
// Files are hostile until validated: header of at most 100 MB, known dtypes,
// sizes that multiply without overflow, spans that cover the data exactly, no
// name twice. Errors name the file and the tensor. Whoever shortens a file that
// is open ends the program (SIGBUS): files are replaced, never changed in
// place.
//
// A SafetensorsFile may be read by any thread; a writer belongs to one.

#ifndef TRIREME_RUNTIME_CHECKPOINT_SAFETENSORS_H_
#define TRIREME_RUNTIME_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/core/dtype.h"
#include "runtime/core/file.h"
#include "runtime/core/shape.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;
};

// Whether the writer has `a` before `b`.
bool ComesBefore(const SafetensorsEntry& a, const SafetensorsEntry& b);

// Writes one tensor after the other, so that a file larger than memory can be
// written; the file gets its name when it is whole.
class SafetensorsWriter {
 public:
  // Errors: no folder, a name that comes twice or is not UTF-8.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<SafetensorsEntry> entries,
      const std::map<std::string, std::string>& metadata);

  // In the order in which Append must follow.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  // The next bytes of a tensor, which may come in pieces. Errors of the caller
  // (order, size) are CHECKed.
  absl::Status Append(const std::string& name, const void* data, int64_t bytes);
  // Size and checksum of the whole file, which is on the disk then.
  absl::StatusOr<CheckpointFile> Commit();

 private:
  SafetensorsWriter(AtomicFile file, std::vector<SafetensorsEntry> entries)
      : file_(std::move(file)), entries_(std::move(entries)) {}
  absl::Status Write(std::string_view bytes);
  // Passes over tensors whose bytes are complete.
  void SkipComplete();

  AtomicFile file_;
  Checksum checksum_;
  std::vector<SafetensorsEntry> entries_;
  size_t next_ = 0;
  int64_t written_ = 0;  // bytes of the next tensor
};

// A file mapped into memory, validated as a whole when it is opened.
class SafetensorsFile {
 public:
  struct Entry {
    DType dtype = DType::kFloat32;
    Shape shape;
    int64_t offset = 0;  // in the file
    int64_t bytes = 0;
  };

  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  // Errors: NotFound, which names the nearest tensor.
  absl::StatusOr<std::span<const std::byte>> Data(
      const std::string& name) const;

 private:
  SafetensorsFile(std::string path, void* mapping, int64_t size)
      : path_(std::move(path)), mapping_(mapping), size_(size) {}
  absl::Status ParseHeader();

  std::string path_;
  void* mapping_;
  int64_t size_;
  std::map<std::string, Entry> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A copy of one tensor on `device`.
absl::StatusOr<Tensor> ReadTensor(
    const SafetensorsFile& file, const std::string& name, Device& device,
    MemoryCategory category = MemoryCategory::kParameters);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_SAFETENSORS_H_
