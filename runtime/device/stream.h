// The order in which a device works through what it is given, and the account
// of it.

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_H_

#include <atomic>
#include <cstdint>
#include <vector>

namespace trireme {

// What kernels were asked for.
struct Work {
  // Of matrix products, a multiply-add as two, as model FLOPs are counted:
  // attention's backward pass without the scores that it computes again.
  int64_t product_flops = 0;
  // Operands read and results written, each once.
  int64_t bytes = 0;
  // Whether its products are attention's.
  bool attention = false;
};

// The host's kernels run as they are called: its stream has nothing to order.
// Counting is thread-safe.
class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

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

 private:
  std::atomic<int64_t> product_flops_ = 0;
  std::atomic<int64_t> bytes_ = 0;
  std::vector<Work>* list_ = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_H_
