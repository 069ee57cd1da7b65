#include "tests/fuzz/input.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "runtime/core/log.h"

namespace trireme {

namespace fs = std::filesystem;

ScratchFolder::ScratchFolder() {
  // Memory, where there is such a file system.
  std::error_code error;
  path_ = (fs::is_directory("/dev/shm", error)
               ? std::string("/dev/shm")
               : fs::temp_directory_path().native()) +
          "/trireme_fuzz.XXXXXX";
  CHECK(mkdtemp(path_.data()) != nullptr) << path_;
}

ScratchFolder::~ScratchFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string ScratchFolder::Write(const std::string& name,
                                 std::string_view content) const {
  const fs::path path = fs::path(path_) / name;
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  CHECK(file.good()) << path;
  return path;
}

}  // namespace trireme
