#include "models/data/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kBufferBytes = size_t{64} << 10;

}  // namespace

TarReader::TarReader(std::string file, int descriptor, int64_t position)
    : file_(std::move(file)),
      descriptor_(descriptor),
      start_(position),
      offset_(position),
      archive_(archive_read_new()),
      buffer_(kBufferBytes) {
  CHECK(archive_ != nullptr) << "libarchive is out of memory";
}

TarReader::~TarReader() {
  archive_read_free(archive_);
  close(descriptor_);
}

absl::StatusOr<std::unique_ptr<TarReader>> TarReader::Open(
    const std::string& file, int64_t position) {
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return NotFound("{}: cannot open: {}", file, std::strerror(errno));
  }
  std::unique_ptr<TarReader> reader(new TarReader(file, descriptor, position));
  struct stat info {};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    return InvalidArgument("{}: not a regular file", file);
  }
  reader->file_bytes_ = info.st_size;
  archive* const tar = reader->archive_;
  if (archive_read_support_format_tar(tar) != ARCHIVE_OK ||
      archive_read_set_read_callback(tar, &TarReader::Read) != ARCHIVE_OK ||
      archive_read_set_skip_callback(tar, &TarReader::Skip) != ARCHIVE_OK ||
      archive_read_set_callback_data(tar, reader.get()) != ARCHIVE_OK ||
      archive_read_open1(tar) != ARCHIVE_OK) {
    return reader->Error();
  }
  return reader;
}

ssize_t TarReader::Read(archive* tar, void* self, const void** buffer) {
  auto* reader = static_cast<TarReader*>(self);
  ssize_t count = 0;
  do {
    count = pread(reader->descriptor_, reader->buffer_.data(),
                  reader->buffer_.size(), reader->offset_);
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    archive_set_error(tar, errno, "cannot read");
    return ARCHIVE_FATAL;
  }
  reader->offset_ += count;
  *buffer = reader->buffer_.data();
  return count;
}

int64_t TarReader::Skip(archive* /*tar*/, void* self, int64_t request) {
  auto* reader = static_cast<TarReader*>(self);
  const int64_t skipped = std::clamp<int64_t>(
      request, 0, std::max<int64_t>(0, reader->file_bytes_ - reader->offset_));
  reader->offset_ += skipped;
  return skipped;
}

absl::Status TarReader::Error() const {
  const char* text = archive_error_string(archive_);
  const char* const reason = text != nullptr ? text : "damaged";
  if (last_header_ < 0) {
    return DataLoss("{}: {} (expected a tar file that is not compressed)",
                    file_, reason);
  }
  return DataLoss("{}: after the member at byte {}, of {} bytes: {}", file_,
                  last_header_, file_bytes_, reason);
}

absl::StatusOr<std::optional<TarMember>> TarReader::Next() {
  int64_t last_position = -1;
  while (true) {
    archive_entry* entry = nullptr;
    const int result = archive_read_next_header(archive_, &entry);
    const int64_t position = archive_read_header_position(archive_);
    if (result == ARCHIVE_EOF) {
      // At the block of zeros if there is one, else at the file's end.
      if (last_header_ < 0 || start_ + position < file_bytes_) {
        return std::nullopt;
      }
      return DataLoss(
          "{}: ends at byte {} without an end-of-archive block: it is cut off",
          file_, file_bytes_);
    }
    if (result == ARCHIVE_RETRY) {
      ++damaged_headers_;
      // libarchive goes on with the next block; should it not, stop.
      if (position <= last_position) return Error();
      last_position = position;
      continue;
    }
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) return Error();
    last_position = position;
    last_header_ = start_ + position;
    // Links, folders and devices have no place in a shard.
    if (archive_entry_filetype(entry) != AE_IFREG ||
        archive_entry_hardlink(entry) != nullptr ||
        archive_entry_size(entry) < 0) {
      continue;
    }
    const char* path = archive_entry_pathname(entry);
    if (path == nullptr) path = archive_entry_pathname_utf8(entry);
    if (path == nullptr) continue;
    return TarMember{path, start_ + position, archive_entry_size(entry)};
  }
}

absl::StatusOr<std::string> TarReader::ReadContent(const TarMember& member,
                                                   int64_t max_bytes) {
  // A size beyond the file's end is a lie; sparse members, which may be longer
  // than the file, are not for shards.
  if (member.size > std::min(max_bytes, file_bytes_)) {
    return ResourceExhausted("{}: {}: {} bytes, expected at most {}", file_,
                             member.path, member.size,
                             std::min(max_bytes, file_bytes_));
  }
  return ReadStart(member, member.size);
}

absl::StatusOr<std::string> TarReader::ReadStart(const TarMember& member,
                                                 int64_t most) {
  std::string content(
      static_cast<size_t>(std::min({member.size, most, file_bytes_})), '\0');
  size_t done = 0;
  while (done < content.size()) {
    const la_ssize_t count = archive_read_data(archive_, content.data() + done,
                                               content.size() - done);
    if (count == ARCHIVE_RETRY) continue;
    if (count <= 0) {
      return DataLoss("{}: {}: cut off after {} of {} bytes", file_,
                      member.path, done, content.size());
    }
    done += static_cast<size_t>(count);
  }
  return content;
}

}  // namespace trireme
