// A disk that fails when it is told to: preloaded into ranks (LD_PRELOAD), it
// stands before what they write below the folder CHAOS_FOLDER. The file
// CHAOS_FAULT says what goes wrong; without it nothing does:
//
//   full       writes fail, as there is no space
//   read_only  writes fail, and making, renaming and removing files
//   broken     syncs fail, and reads and writes at a place in a file
//   slow       each sync takes half a second
//   torn       half of a write reaches the disk, then the process dies; once
//              (where CHAOS_RANKS is set, of the ranks of a launch alone)

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
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

bool IsBelow(std::string_view path) {
  const char* const folder = std::getenv("CHAOS_FOLDER");
  return folder != nullptr && path.starts_with(folder);
}

bool IsBelow(int descriptor) {
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
  return size > 0 && IsBelow(std::string_view(target.data(), size));
}

// Of a path as a call takes it, from the folder `from`.
bool IsBelow(int from, const char* path) {
  if (path[0] == '/') return IsBelow(std::string_view(path));
  if (from != AT_FDCWD) return IsBelow(from);
  std::array<char, 4096> whole{};
  if (getcwd(whole.data(), whole.size()) == nullptr) return false;
  const std::string_view here(whole.data());
  const std::string_view name(path);
  if (here.size() + 1 + name.size() > whole.size()) return false;
  char* end = whole.data() + here.size();
  *end++ = '/';
  end = std::copy(name.begin(), name.end(), end);
  return IsBelow(std::string_view(whole.data(), end - whole.data()));
}

// Whether the disk does not let files there be made, renamed or removed; says
// so as a system does.
bool IsReadOnly(int from, const char* path) {
  std::array<char, 16> text{};
  if (Fault(text) != "read_only" || !IsBelow(from, path)) return false;
  errno = EROFS;
  return true;
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
  if (fault == "full" || fault == "read_only") {
    errno = fault == "full" ? ENOSPC : EROFS;
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
    if (fault == "full" || fault == "read_only" || fault == "broken") {
      errno = fault == "full" ? ENOSPC : fault == "broken" ? EIO : EROFS;
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

namespace {

bool Writes(int flags) {
  return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0;
}

}  // namespace

extern "C" int open(const char* path, int flags, ...) {
  static auto* const next = Next<int(const char*, int, ...)>("open");
  va_list list;
  va_start(list, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
  va_end(list);
  if (Writes(flags) && IsReadOnly(AT_FDCWD, path)) return -1;
  return next(path, flags, mode);
}

extern "C" int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const next = Next<int(const char*, mode_t)>("mkdir");
  // One that is there is no change.
  if (access(path, F_OK) != 0 && IsReadOnly(AT_FDCWD, path)) return -1;
  return next(path, mode);
}

extern "C" int rename(const char* from, const char* to) noexcept {
  static auto* const next = Next<int(const char*, const char*)>("rename");
  return IsReadOnly(AT_FDCWD, to) ? -1 : next(from, to);
}

extern "C" int remove(const char* path) noexcept {
  static auto* const next = Next<int(const char*)>("remove");
  return IsReadOnly(AT_FDCWD, path) ? -1 : next(path);
}

extern "C" int unlink(const char* path) noexcept {
  static auto* const next = Next<int(const char*)>("unlink");
  return IsReadOnly(AT_FDCWD, path) ? -1 : next(path);
}

extern "C" int unlinkat(int from, const char* path, int flags) noexcept {
  static auto* const next = Next<int(int, const char*, int)>("unlinkat");
  return IsReadOnly(from, path) ? -1 : next(from, path, flags);
}
