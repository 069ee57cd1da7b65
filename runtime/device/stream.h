// The order in which a device works through what it is given, and the account
// of it. A device has one stream for each resource of a Program; work of
// different streams is ordered by events alone.

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/device/event.h"
#include "runtime/device/stream_mark.h"

namespace trireme {

// As scheduler/program/program.h names its resources.
enum class StreamKind { kCompute, kCommunication, kCopyIn, kCopyOut };

inline constexpr int kNumStreams = 4;

// What kernels were asked for.
struct Work {
  // Of matrix products, a multiply-add as two, as model FLOPs are counted:
  // attention's backward pass without the scores that it computes again.
  int64_t product_flops = 0;
  // Operands read and results written, each once.
  int64_t bytes = 0;
  // Whether its products are attention's.
  bool attention = false;
  // Whether its products are of operands in FP8.
  bool float8 = false;
};

// The host's own stream: what it is given is done when the call returns, and
// there is nothing to order. An asynchronous device's streams override the
// rest. Thread-safe.
class Stream {
 public:
  Stream() : Stream(/*synchronous=*/true) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Whether work is done when Launch returns.
  bool synchronous() const { return synchronous_; }
  // Runs `work` on the host, in the stream's order; what it captures lives
  // until it has run.
  template <typename F>
  void Launch(F work) {
    if (synchronous_) {
      work();
    } else {
      Enqueue(std::move(work));
    }
  }
  // Bytes that this device or the host reaches, either way, in the stream's
  // order. They live until the stream has passed.
  virtual void CopyBytes(void* to, const void* from, int64_t bytes) {
    Launch([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  }
  // Of this device.
  virtual void ZeroBytes(void* to, int64_t bytes) {
    Launch([=] { std::memset(to, 0, static_cast<size_t>(bytes)); });
  }
  // Done when all that the stream was given before is.
  virtual Event Record() { return Event(); }
  // When that is, by the device's clock.
  virtual std::shared_ptr<StreamMark> Mark() {
    auto mark = std::make_shared<HostMark>();
    Launch([mark] { mark->Reach(); });
    mark->set_event(Record());
    return mark;
  }
  // Blocks the host for the same.
  void Synchronize() { Record().Synchronize(); }

  // By the kernels of a dry device, which do nothing else. Each is added to
  // `list`, if there is one, which outlives its use by one thread.
  void ListKernels(std::vector<Work>* list) { list_ = list; }
  void Count(const Work& work) {
    if (list_ != nullptr) list_->push_back(work);
    product_flops_.fetch_add(work.product_flops, std::memory_order_relaxed);
    bytes_.fetch_add(work.bytes, std::memory_order_relaxed);
  }
  Work counted() const {
    return {product_flops_.load(std::memory_order_relaxed),
            bytes_.load(std::memory_order_relaxed)};
  }

 protected:
  explicit Stream(bool synchronous) : synchronous_(synchronous) {}

 private:
  // Of asynchronous streams.
  virtual void Enqueue(std::function<void()> work) { work(); }

  const bool synchronous_;
  std::atomic<int64_t> product_flops_ = 0;
  std::atomic<int64_t> bytes_ = 0;
  std::vector<Work>* list_ = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_H_
