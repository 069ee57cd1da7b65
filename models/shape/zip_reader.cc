#include "models/shape/zip_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <array>
#include <memory>
#include <optional>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kMaxMembers = 1000000;
constexpr size_t kBlock = size_t{64} << 10;

class Zip {
 public:
  static absl::StatusOr<Zip> Open(const std::string& path) {
    Zip zip(path);
    archive* const handle = zip.handle_.get();
    CHECK(handle != nullptr) << "libarchive is out of memory";
    if (archive_read_support_format_zip(handle) != ARCHIVE_OK ||
        archive_read_open_filename(handle, path.c_str(), kBlock) !=
            ARCHIVE_OK) {
      return zip.Error();
    }
    return zip;
  }

  // The next file's name, or nothing at the end.
  absl::StatusOr<std::optional<std::string>> Next() {
    while (true) {
      archive_entry* entry = nullptr;
      const int result = archive_read_next_header(handle_.get(), &entry);
      if (result == ARCHIVE_EOF) return std::nullopt;
      if (result != ARCHIVE_OK && result != ARCHIVE_WARN) return Error();
      if (archive_entry_filetype(entry) != AE_IFREG) continue;
      const char* name = archive_entry_pathname_utf8(entry);
      if (name == nullptr) name = archive_entry_pathname(entry);
      if (name != nullptr) return std::string(name);
    }
  }

  absl::StatusOr<std::string> Content(const std::string& name,
                                      int64_t max_bytes) {
    std::string content;
    std::array<char, kBlock> block;
    while (true) {
      const la_ssize_t count =
          archive_read_data(handle_.get(), block.data(), block.size());
      if (count == 0) return content;
      if (count == ARCHIVE_RETRY) continue;
      if (count < 0) return WithContext(Error(), name);
      content.append(block.data(), static_cast<size_t>(count));
      if (static_cast<int64_t>(content.size()) > max_bytes) {
        return ResourceExhausted("more than {} bytes come out of {}", max_bytes,
                                 name);
      }
    }
  }

 private:
  explicit Zip(std::string path)
      : path_(std::move(path)), handle_(archive_read_new()) {}

  absl::Status Error() const {
    const char* const text = archive_error_string(handle_.get());
    return DataLoss("{}: {}; expected a zip archive", path_,
                    text != nullptr ? text : "damaged");
  }

  struct Free {
    void operator()(archive* handle) const { archive_read_free(handle); }
  };

  std::string path_;
  std::unique_ptr<archive, Free> handle_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ListZip(const std::string& archive) {
  ASSIGN_OR_RETURN(Zip zip, Zip::Open(archive));
  std::vector<std::string> names;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string> name, zip.Next());
    if (!name.has_value()) return names;
    if (names.size() == kMaxMembers) {
      return ResourceExhausted("{}: more than {} files", archive, kMaxMembers);
    }
    names.push_back(*name);
  }
}

absl::StatusOr<std::string> ReadZipMember(const std::string& archive,
                                          const std::string& name,
                                          int64_t max_bytes) {
  ASSIGN_OR_RETURN(Zip zip, Zip::Open(archive));
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string> found, zip.Next());
    if (!found.has_value()) return NotFound("{}: no {}", archive, name);
    if (*found == name) return zip.Content(name, max_bytes);
  }
}

}  // namespace trireme
