// How much of its memory a process may lock, which is what pinning does to it.

#ifndef TRIREME_RUNTIME_DEVICE_LOCKED_MEMORY_H_
#define TRIREME_RUNTIME_DEVICE_LOCKED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "absl/status/status.h"

namespace trireme {

// RLIMIT_MEMLOCK, in bytes; none where there is no limit.
std::optional<int64_t> LockedMemoryLimit();

// Before `bytes` are allocated to be locked: that `lock`, which undoes what it
// does, may lock so much. Not every driver heeds `limit`, nor do privileged
// processes: where `bytes` are more than it, a page more than it is locked to
// see. Errors: lock's; ResourceExhausted, where there is no memory for that.
absl::Status CheckLockable(
    int64_t bytes, std::optional<int64_t> limit,
    const std::function<absl::Status(std::span<std::byte>)>& lock);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_LOCKED_MEMORY_H_
