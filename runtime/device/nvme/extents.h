// A file on a drive whose every byte has its place there from the beginning,
// and what was written to it: blocks, each with the checksum of what it should
// hold. It has no name: whoever looks into the folder does not see it, and it
// is gone with the process, however that ends.
//
// Its bytes also have addresses, which nobody may touch (a stray access faults)
// and by which tensors on it are told apart.

#ifndef TRIREME_RUNTIME_DEVICE_NVME_EXTENTS_H_
#define TRIREME_RUNTIME_DEVICE_NVME_EXTENTS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

// Thread-safe; of one block one thread at a time.
class Extents {
 public:
  // What is read and written at once: drives are at their fastest from about
  // 128 KiB on.
  static constexpr int64_t kBlockBytes = 256 << 10;
  // Of memory and offsets, where the page cache is passed by.
  static constexpr int64_t kAlignment = 4096;
  static constexpr int64_t WholeBlocks(int64_t bytes) {
    return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  }

  // `bytes` in `folder`, which is made if there is none; `owner` is in errors
  // ("rank 3"). Errors: ResourceExhausted where the drive has too little room,
  // with both figures; the system's.
  static absl::StatusOr<std::unique_ptr<Extents>> Create(
      const std::string& folder, int64_t bytes, const std::string& owner);
  ~Extents();
  Extents(const Extents&) = delete;
  Extents& operator=(const Extents&) = delete;

  int descriptor() const { return descriptor_; }
  int64_t bytes() const { return bytes_; }
  std::byte* begin() const { return begin_; }
  bool Has(const void* address) const;
  int64_t OffsetOf(const void* address) const;
  // The page cache is passed by (O_DIRECT), which not all file systems allow:
  // memory needs kAlignment.
  bool direct() const { return direct_; }

  // What the block at `offset` should hold from now on.
  void Note(int64_t offset, const std::byte* content);
  // Whether anything was written there.
  bool Written(int64_t offset) const;
  // DataLoss where what was read is not what was written last.
  absl::Status Check(int64_t offset, const std::byte* content) const;

  // The first failure; nothing is moved after it. `what` happened to the bytes
  // from `offset` on.
  absl::Status status() const;
  void Fail(absl::Status status);
  absl::Status Error(absl::StatusCode code, int64_t offset,
                     const std::string& what) const;

  // That were moved.
  std::atomic<int64_t> read_bytes = 0;
  std::atomic<int64_t> written_bytes = 0;

 private:
  Extents(std::string name, int descriptor, int64_t bytes);
  absl::Status Allocate(const std::string& folder, const std::string& owner);
  void PassPageCache();

  const std::string name_;  // for errors
  const int descriptor_;
  const int64_t bytes_;
  std::byte* begin_ = nullptr;
  bool direct_ = false;
  // Of each block; 0: nothing was written.
  std::vector<uint64_t> checksums_;
  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_EXTENTS_H_
