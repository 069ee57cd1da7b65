// A drive as a Device: tensors on it lie in a file, nothing computes with them,
// and its streams copy them to and from the host's memory. See device.h.

#ifndef TRIREME_RUNTIME_DEVICE_NVME_NVME_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_NVME_NVME_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/device/nvme/extents.h"
#include "runtime/device/nvme/io_engine.h"
#include "runtime/device/tensor.h"

namespace trireme {

class NvmeDevice final : public Device {
 public:
  struct Options {
    std::string folder;
    // What its tensors take, each in whole blocks.
    int64_t bytes = 0;
    std::string owner;  // in errors: "rank 3"
    // Null: io_uring where that can be used, else threads.
    IoEngineMaker engine;
  };

  // Reads run on the stream kCopyIn, and so beside writes on kCopyOut; what
  // comes without a stream is with the former. What is not aligned passes
  // through memory of `host`, a device of the host that outlives it. Errors:
  // those of Extents and of the engine.
  static absl::StatusOr<std::unique_ptr<NvmeDevice>> Open(
      const Options& options, Device& host);
  // Counts what tensors would take, and takes of `host` what the other takes.
  static std::unique_ptr<NvmeDevice> Dry(Device& host);
  ~NvmeDevice() override;

  // status(), and the first failure of the drive: what was read since means
  // nothing.
  absl::Status drive_status() const;
  // Copies to and from this tensor of the host's memory will be many. It lives
  // as long as they go on.
  void Register(const Tensor& buffer);

  // "io_uring with registered buffers, past the page cache". Not of a dry one.
  std::string Describe();
  // Since it was opened.
  int64_t read_bytes() const {
    return extents_ ? extents_->read_bytes.load() : 0;
  }
  int64_t written_bytes() const {
    return extents_ ? extents_->written_bytes.load() : 0;
  }

 private:
  NvmeDevice(std::shared_ptr<Extents> extents, std::vector<Tensor> blocks,
             std::unique_ptr<MemorySource> memory, int64_t limit_bytes,
             Streams streams);

  const std::shared_ptr<Extents> extents_;  // null: dry
  const std::vector<Tensor> blocks_;        // of the streams
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_NVME_DEVICE_H_
