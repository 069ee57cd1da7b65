// A stream of a drive: a thread that copies between its blocks and the host's
// memory, in the order in which it is told to.

#ifndef TRIREME_RUNTIME_DEVICE_NVME_NVME_STREAM_H_
#define TRIREME_RUNTIME_DEVICE_NVME_NVME_STREAM_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "runtime/device/nvme/extents.h"
#include "runtime/device/nvme/io_engine.h"
#include "runtime/device/stream.h"

namespace trireme {

class NvmeStream final : public Stream {
 public:
  // `block`: memory of a block, aligned as the extents want it, for what is
  // not. It lives until the stream has passed.
  NvmeStream(std::shared_ptr<Extents> extents, std::unique_ptr<IoEngine> engine,
             std::byte* block);
  // All work is done by then.
  ~NvmeStream() override;

  // One side is the drive's, the other the host's memory. Whole blocks from and
  // to aligned memory are moved where they lie, others pass through one block.
  // Nothing is done after a failure (Extents::status).
  void CopyBytes(void* to, const void* from, int64_t bytes) override;
  void ZeroBytes(void* to, int64_t bytes) override;
  Event Record() override;

  // Copies will use it again and again.
  void Register(std::span<std::byte> memory);
  // "io_uring with registered buffers". Blocks until the stream has passed.
  std::string Describe();

 private:
  class Point;

  void Enqueue(std::function<void()> work) override;
  void Run();
  void Copy(bool write, int64_t offset, std::byte* memory, int64_t bytes);
  bool Aligned(const std::byte* memory) const;
  // At most one block, through block_. Without memory: zeros.
  absl::Status CopyPart(bool write, int64_t offset, std::byte* memory,
                        int64_t bytes);
  // Whole blocks, as many at once as the engine takes.
  absl::Status Move(bool write, int64_t offset, std::byte* memory,
                    int64_t bytes);
  absl::Status ErrorOf(const IoRequest& request, int64_t result) const;

  const std::shared_ptr<Extents> extents_;
  const std::unique_ptr<IoEngine> engine_;
  std::byte* const block_;
  // The thread's.
  std::vector<std::span<std::byte>> registered_;
  bool takes_registered_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<std::function<void()>> work_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_NVME_STREAM_H_
