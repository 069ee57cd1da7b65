// Reads a tar file's members by position, through libarchive.
//
// The file is hostile: sizes that it claims are never allocated beyond the
// caller's limit nor believed beyond the file's end, and nothing is extracted
// to a path. One thread per TarReader; any number of readers of one file.

#ifndef TRIREME_MODELS_DATA_TAR_READER_H_
#define TRIREME_MODELS_DATA_TAR_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct archive;

namespace trireme {

struct TarMember {
  std::string path;
  // Where its header begins: what Open takes.
  int64_t position = 0;
  int64_t size = 0;
};

class TarReader {
 public:
  // Starts at a member's position, or 0. Errors: the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<TarReader>> Open(
      const std::string& file, int64_t position);

  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;
  ~TarReader();

  // The next regular file, or nothing at the end. Headers with a wrong checksum
  // are passed over (see damaged_headers). DataLoss: what follows cannot be
  // read, or the file ends without the block of zeros that ends an archive: it
  // was cut between two members.
  absl::StatusOr<std::optional<TarMember>> Next();

  // The content of the member that Next gave last. Errors: longer than
  // max_bytes; cut off.
  absl::StatusOr<std::string> ReadContent(const TarMember& member,
                                          int64_t max_bytes);

  // Its first `most` bytes, or all of it.
  absl::StatusOr<std::string> ReadStart(const TarMember& member, int64_t most);

  int64_t damaged_headers() const { return damaged_headers_; }

 private:
  TarReader(std::string file, int descriptor, int64_t position);

  static ssize_t Read(archive*, void* self, const void** buffer);
  static int64_t Skip(archive*, void* self, int64_t request);

  absl::Status Error() const;

  std::string file_;
  int descriptor_;
  int64_t file_bytes_ = 0;
  int64_t start_;   // where the archive begins in the file
  int64_t offset_;  // what is read next
  archive* archive_;
  std::vector<char> buffer_;
  int64_t damaged_headers_ = 0;
  int64_t last_header_ = -1;  // of the last member found, in the file
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_TAR_READER_H_
