// Who has the system read and write blocks of a file while the caller goes on:
// io_uring, or threads that call pread and pwrite where io_uring is not there
// or is not allowed (containers often forbid it).

#ifndef TRIREME_RUNTIME_DEVICE_NVME_IO_ENGINE_H_
#define TRIREME_RUNTIME_DEVICE_NVME_IO_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace trireme {

struct IoRequest {
  bool write = false;
  int64_t offset = 0;  // in the file
  std::byte* data = nullptr;
  int64_t bytes = 0;
  int id = 0;  // comes back with the result
};

struct IoResult {
  int id = 0;
  // That were moved, which may be fewer than asked for; or -errno.
  int64_t bytes = 0;
};

// Used by one thread.
class IoEngine {
 public:
  // Requests that are under way at most.
  static constexpr int kDepth = 16;

  virtual ~IoEngine() = default;

  // "io_uring", "threads".
  virtual std::string_view name() const = 0;
  // Begins one; its memory lives until Finish has returned it.
  virtual void Start(const IoRequest& request) = 0;
  // Waits for one that was started.
  virtual IoResult Finish() = 0;
  // Memory that requests will use again and again, in place of what was said
  // before, when nothing is under way: the system need not look up its pages
  // each time. False where it does not take it; requests work all the same.
  virtual bool Register(std::span<const std::span<std::byte>> /*memory*/) {
    return false;
  }
};

// Makes an engine on an open file.
using IoEngineMaker =
    std::function<absl::StatusOr<std::unique_ptr<IoEngine>>(int descriptor)>;

// Unavailable, with the system's reason, where io_uring cannot be used.
absl::StatusOr<std::unique_ptr<IoEngine>> MakeUringEngine(int descriptor);
std::unique_ptr<IoEngine> MakeThreadEngine(int descriptor);
// The former where it can be used, else the latter.
std::unique_ptr<IoEngine> MakeIoEngine(int descriptor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_IO_ENGINE_H_
