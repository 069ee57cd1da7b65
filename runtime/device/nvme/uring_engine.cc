#include <liburing.h>

#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "runtime/core/status.h"
#include "runtime/device/nvme/io_engine.h"

namespace trireme {
namespace {

class UringEngine final : public IoEngine {
 public:
  // Takes over the ring.
  UringEngine(const io_uring& ring, int descriptor)
      : ring_(ring), descriptor_(descriptor) {}
  ~UringEngine() override { io_uring_queue_exit(&ring_); }

  std::string_view name() const override { return "io_uring"; }

  void Start(const IoRequest& request) override {
    // There are as many entries as requests under way.
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    const auto bytes = static_cast<unsigned>(request.bytes);
    const auto offset = static_cast<__u64>(request.offset);
    const int registered = RegisteredWith(request);
    if (registered >= 0 && request.write) {
      io_uring_prep_write_fixed(entry, descriptor_, request.data, bytes, offset,
                                registered);
    } else if (registered >= 0) {
      io_uring_prep_read_fixed(entry, descriptor_, request.data, bytes, offset,
                               registered);
    } else if (request.write) {
      io_uring_prep_write(entry, descriptor_, request.data, bytes, offset);
    } else {
      io_uring_prep_read(entry, descriptor_, request.data, bytes, offset);
    }
    io_uring_sqe_set_data64(entry, static_cast<__u64>(request.id));
    // What the system does not take now, Finish gives it again.
    io_uring_submit(&ring_);
  }

  IoResult Finish() override {
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(&ring_, &done) != 0) {
      io_uring_submit_and_wait(&ring_, 1);
    }
    const IoResult result = {
        .id = static_cast<int>(io_uring_cqe_get_data64(done)),
        .bytes = done->res};
    io_uring_cqe_seen(&ring_, done);
    return result;
  }

  bool Register(std::span<const std::span<std::byte>> memory) override {
    if (!registered_.empty()) io_uring_unregister_buffers(&ring_);
    registered_.assign(memory.begin(), memory.end());
    std::vector<iovec> buffers;
    for (const std::span<std::byte> buffer : registered_) {
      buffers.push_back({buffer.data(), buffer.size()});
    }
    if (io_uring_register_buffers(&ring_, buffers.data(),
                                  static_cast<unsigned>(buffers.size())) != 0) {
      registered_.clear();
    }
    return !registered_.empty();
  }

 private:
  // The number of the buffer that the request lies in, or -1.
  int RegisteredWith(const IoRequest& request) const {
    for (size_t i = 0; i < registered_.size(); ++i) {
      const std::span<std::byte> buffer = registered_[i];
      if (request.data >= buffer.data() &&
          request.data + request.bytes <= buffer.data() + buffer.size()) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  io_uring ring_;
  const int descriptor_;
  std::vector<std::span<std::byte>> registered_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<IoEngine>> MakeUringEngine(int descriptor) {
  io_uring ring{};
  const int error = -io_uring_queue_init(IoEngine::kDepth, &ring, 0);
  if (error != 0) {
    return Unavailable("io_uring: {}", std::generic_category().message(error));
  }
  return std::make_unique<UringEngine>(ring, descriptor);
}

std::unique_ptr<IoEngine> MakeIoEngine(int descriptor) {
  auto engine = MakeUringEngine(descriptor);
  return engine.ok() ? *std::move(engine) : MakeThreadEngine(descriptor);
}

}  // namespace trireme
