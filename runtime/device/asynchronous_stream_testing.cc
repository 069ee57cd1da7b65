#include "runtime/device/asynchronous_stream_testing.h"

#include <omp.h>

#include <chrono>
#include <memory>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// A point in a stream.
class Point final : public Event::Work {
 public:
  void Reach() {
    const std::lock_guard lock(mutex_);
    reached_ = true;
    changed_.notify_all();
  }
  void Wait() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  bool Test() override {
    const std::lock_guard lock(mutex_);
    return reached_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;  // guarded by mutex_
};

}  // namespace

AsynchronousStream::AsynchronousStream(uint64_t seed)
    : Stream(/*synchronous=*/false),
      random_(static_cast<std::minstd_rand::result_type>(seed + 1)),
      thread_([this, threads = omp_get_max_threads()] { Run(threads); }) {}

AsynchronousStream::~AsynchronousStream() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Event AsynchronousStream::Record() {
  auto point = std::make_shared<Point>();
  Enqueue([point] { point->Reach(); });
  return Event(std::move(point));
}

void AsynchronousStream::Enqueue(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(!ends_) << "work for a stream that has ended";
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void AsynchronousStream::Run(int threads) {
  omp_set_num_threads(threads);
  while (true) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ends_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    Pause();
    work();
  }
}

void AsynchronousStream::Pause() {
  const auto draw = random_();
  if (draw % 64 == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(draw / 64 % 1024));
  } else if (draw % 8 == 0) {
    std::this_thread::yield();
  }
}

}  // namespace trireme
