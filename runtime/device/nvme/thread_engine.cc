#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/device/nvme/io_engine.h"

namespace trireme {
namespace {

// A drive is busy with so many requests of a block's size at once.
constexpr int kThreads = 4;

class ThreadEngine final : public IoEngine {
 public:
  explicit ThreadEngine(int descriptor) : descriptor_(descriptor) {
    for (int i = 0; i < kThreads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  ~ThreadEngine() override {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::string_view name() const override { return "threads"; }

  void Start(const IoRequest& request) override {
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    changed_.notify_all();
  }

  IoResult Finish() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !results_.empty(); });
    const IoResult result = results_.front();
    results_.pop_front();
    return result;
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ends_ || !requests_.empty(); });
      if (requests_.empty()) return;
      const IoRequest request = requests_.front();
      requests_.pop_front();
      lock.unlock();
      const auto bytes = static_cast<size_t>(request.bytes);
      const ssize_t moved =
          request.write
              ? pwrite(descriptor_, request.data, bytes, request.offset)
              : pread(descriptor_, request.data, bytes, request.offset);
      const IoResult result = {.id = request.id,
                               .bytes = moved < 0 ? -errno : moved};
      lock.lock();
      results_.push_back(result);
      changed_.notify_all();
    }
  }

  const int descriptor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<IoRequest> requests_;
  std::deque<IoResult> results_;
  bool ends_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<IoEngine> MakeThreadEngine(int descriptor) {
  return std::make_unique<ThreadEngine>(descriptor);
}

}  // namespace trireme
