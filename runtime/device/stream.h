// The order in which a device works through what it is given, and the account
// of it.

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_H_

#include <atomic>
#include <cstdint>

namespace trireme {

// What kernels were asked for.
struct Work {
  // Of matrix products, a multiply-add as two, as model FLOPs are counted:
  // attention's backward pass without the scores that it computes again.
  int64_t product_flops = 0;
  // Operands read and results written, each once.
  int64_t bytes = 0;
};

// The host's kernels run as they are called: its stream has nothing to order.
// Counting is thread-safe.
class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // By the kernels of a dry device, which do nothing else.
  void Count(const Work& work) {
    product_flops_.fetch_add(work.product_flops, std::memory_order_relaxed);
    bytes_.fetch_add(work.bytes, std::memory_order_relaxed);
  }
  Work counted() const {
    return {product_flops_.load(std::memory_order_relaxed),
            bytes_.load(std::memory_order_relaxed)};
  }

 private:
  std::atomic<int64_t> product_flops_ = 0;
  std::atomic<int64_t> bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_H_
