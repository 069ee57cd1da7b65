// A disk that fails when it is told to: preloaded into ranks (LD_PRELOAD), it
// stands before what they write below the folder CHAOS_FOLDER. The file
// CHAOS_FAULT says what goes wrong; without it nothing does:
//
//   full    writes fail, as there is no space
//   broken  syncs fail, and reads and writes at a place in a file
//   slow    each sync takes half a second
//   torn    half of a write reaches the disk, then the process dies; once
//           (where CHAOS_RANKS is set, of the ranks of a launch alone)

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace {

// What CHAOS_FAULT says; empty where there is no such file. Touches `text`.
std::string_view Fault(std::array<char, 16>& text) {
  const char* const path = std::getenv("CHAOS_FAULT");
  if (path == nullptr) return {};
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return {};
  const ssize_t size = read(descriptor, text.data(), text.size());
  close(descriptor);
  return {text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))};
}

// Removes the fault: whether this write is the one to be torn.
bool Tears(std::string_view fault) {
  const bool may = std::getenv("CHAOS_RANKS") == nullptr ||
                   std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  return may && fault == "torn" && unlink(std::getenv("CHAOS_FAULT")) == 0;
}

bool IsBelow(int descriptor) {
  const char* const folder = std::getenv("CHAOS_FOLDER");
  if (folder == nullptr) return false;
  std::array<char, 64> link{};
  // snprintf may itself write; "/proc/self/fd/" and digits do not need it.
  constexpr std::string_view kLinks = "/proc/self/fd/";
  char* end = std::copy(kLinks.begin(), kLinks.end(), link.begin());
  std::array<char, 12> digits{};
  size_t count = 0;
  for (int left = descriptor; count == 0 || left > 0; left /= 10) {
    digits[count++] = static_cast<char>('0' + left % 10);
  }
  while (count > 0) *end++ = digits[--count];
  std::array<char, 4096> target{};
  const ssize_t size = readlink(link.data(), target.data(), target.size());
  return size > 0 && std::string_view(target.data(), size).starts_with(folder);
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" ssize_t write(int descriptor, const void* bytes, size_t count) {
  static auto* const next = Next<ssize_t(int, const void*, size_t)>("write");
  std::array<char, 16> text{};
  const std::string_view fault = Fault(text);
  if (fault.empty() || !IsBelow(descriptor)) {
    return next(descriptor, bytes, count);
  }
  if (fault == "full") {
    errno = ENOSPC;
    return -1;
  }
  if (Tears(fault)) {
    next(descriptor, bytes, count / 2);
    raise(SIGKILL);
  }
  return next(descriptor, bytes, count);
}

// Of a drive that holds what is too much for memory.
extern "C" ssize_t pwrite(int descriptor, const void* bytes, size_t count,
                          off_t offset) {
  static auto* const next =
      Next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  std::array<char, 16> text{};
  const std::string_view fault = Fault(text);
  if (!fault.empty() && IsBelow(descriptor)) {
    if (fault == "full" || fault == "broken") {
      errno = fault == "full" ? ENOSPC : EIO;
      return -1;
    }
    if (Tears(fault)) {
      next(descriptor, bytes, count / 2, offset);
      raise(SIGKILL);
    }
  }
  return next(descriptor, bytes, count, offset);
}

extern "C" ssize_t pread(int descriptor, void* bytes, size_t count,
                         off_t offset) {
  static auto* const next = Next<ssize_t(int, void*, size_t, off_t)>("pread");
  std::array<char, 16> text{};
  if (Fault(text) == "broken" && IsBelow(descriptor)) {
    errno = EIO;
    return -1;
  }
  return next(descriptor, bytes, count, offset);
}

extern "C" int fsync(int descriptor) {
  static auto* const next = Next<int(int)>("fsync");
  std::array<char, 16> text{};
  const std::string_view fault = Fault(text);
  if (!fault.empty() && IsBelow(descriptor)) {
    if (fault == "slow") usleep(500'000);
    if (fault == "broken") {
      errno = EIO;
      return -1;
    }
  }
  return next(descriptor);
}
