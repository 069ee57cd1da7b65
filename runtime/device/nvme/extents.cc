#include "runtime/device/nvme/extents.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"
#include "xxhash.h"

namespace trireme {
namespace {

std::string ReasonText(int error) {
  return std::generic_category().message(error);
}

uint64_t ChecksumOf(const std::byte* content) {
  // 0 stands for nothing.
  return std::max<uint64_t>(1, XXH3_64bits(content, Extents::kBlockBytes));
}

}  // namespace

Extents::Extents(std::string name, int descriptor, int64_t bytes)
    : name_(std::move(name)), descriptor_(descriptor), bytes_(bytes) {}

Extents::~Extents() {
  if (begin_ != nullptr) munmap(begin_, static_cast<size_t>(bytes_));
  close(descriptor_);
}

absl::StatusOr<std::unique_ptr<Extents>> Extents::Create(
    const std::string& folder, int64_t bytes, const std::string& owner) {
  RETURN_IF_ERROR(MakeDirectories(folder));
  std::string name = folder + "/trireme-XXXXXX";
  const int descriptor = mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) {
    return Unavailable("{}: cannot create a file: {}", folder,
                       ReasonText(errno));
  }
  unlink(name.c_str());
  std::unique_ptr<Extents> extents(
      new Extents(fmt::format("{} ({})", name, owner), descriptor,
                  std::max(kBlockBytes, WholeBlocks(bytes))));
  RETURN_IF_ERROR(extents->Allocate(folder, owner));
  extents->PassPageCache();
  return extents;
}

absl::Status Extents::Allocate(const std::string& folder,
                               const std::string& owner) {
  const auto no_room = [&](int64_t free) {
    return ResourceExhausted(
        "{}: {} would need {} there, of which {} are free. To fit: a larger "
        "drive, more pipeline or tensor parallel ranks on other machines, or "
        "offload without nvme",
        folder, owner, BytesText(bytes_), BytesText(free));
  };
  struct statvfs system {};
  if (fstatvfs(descriptor_, &system) != 0) {
    return Unavailable("{}: cannot examine: {}", folder, ReasonText(errno));
  }
  const int64_t free = static_cast<int64_t>(system.f_bavail) *
                       static_cast<int64_t>(system.f_frsize);
  if (free < bytes_) return no_room(free);
  const int error = posix_fallocate(descriptor_, 0, bytes_);
  // Others write there, too.
  if (error == ENOSPC) return no_room(free);
  if (error != 0) {
    return Unavailable("{}: cannot allocate {}: {}", folder, BytesText(bytes_),
                       ReasonText(error));
  }
  void* const begin = mmap(nullptr, static_cast<size_t>(bytes_), PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (begin == MAP_FAILED) {
    return ResourceExhausted("{}: no addresses for {}: {}", folder,
                             BytesText(bytes_), ReasonText(errno));
  }
  begin_ = static_cast<std::byte*>(begin);
  checksums_.assign(bytes_ / kBlockBytes, 0);
  return absl::OkStatus();
}

void Extents::PassPageCache() {
  const int flags = fcntl(descriptor_, F_GETFL);
  if (fcntl(descriptor_, F_SETFL, flags | O_DIRECT) != 0) return;
  // Some file systems take the flag and refuse the reading.
  void* const block = std::aligned_alloc(kAlignment, kAlignment);
  direct_ = pread(descriptor_, block, kAlignment, 0) == kAlignment;
  std::free(block);
  if (!direct_) fcntl(descriptor_, F_SETFL, flags);
}

bool Extents::Has(const void* address) const {
  const auto* const at = static_cast<const std::byte*>(address);
  return at >= begin_ && at < begin_ + bytes_;
}

int64_t Extents::OffsetOf(const void* address) const {
  return static_cast<const std::byte*>(address) - begin_;
}

void Extents::Note(int64_t offset, const std::byte* content) {
  checksums_[offset / kBlockBytes] = ChecksumOf(content);
}

bool Extents::Written(int64_t offset) const {
  return checksums_[offset / kBlockBytes] != 0;
}

absl::Status Extents::Check(int64_t offset, const std::byte* content) const {
  const uint64_t expected = checksums_[offset / kBlockBytes];
  if (expected == 0) return absl::OkStatus();
  const uint64_t found = ChecksumOf(content);
  if (found == expected) return absl::OkStatus();
  return Error(
      absl::StatusCode::kDataLoss, offset,
      fmt::format("found a checksum of {:016x}, expected {:016x}, that of what "
                  "was written: the drive lost a part of it",
                  found, expected));
}

absl::Status Extents::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void Extents::Fail(absl::Status status) {
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = std::move(status);
}

absl::Status Extents::Error(absl::StatusCode code, int64_t offset,
                            const std::string& what) const {
  const int64_t block = offset / kBlockBytes * kBlockBytes;
  return StatusOf(code, "{}: bytes {} to {} of {}: {}", name_, block,
                  block + kBlockBytes, bytes_, what);
}

}  // namespace trireme
