#include "runtime/device/locked_memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/core/status.h"

namespace trireme {

std::optional<int64_t> LockedMemoryLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
      limit.rlim_cur == RLIM_INFINITY) {
    return std::nullopt;
  }
  return static_cast<int64_t>(limit.rlim_cur);
}

absl::Status CheckLockable(
    int64_t bytes, std::optional<int64_t> limit,
    const std::function<absl::Status(std::span<std::byte>)>& lock) {
  if (!limit.has_value() || bytes <= *limit) return absl::OkStatus();
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const auto size = static_cast<size_t>((*limit / page + 1) * page);
  void* const pages = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    return ResourceExhausted("the system has no {} bytes to try it with", size);
  }
  const absl::Status locked = lock({static_cast<std::byte*>(pages), size});
  munmap(pages, size);
  return locked;
}

}  // namespace trireme
