#include "runtime/device/asynchronous_stream_testing.h"

#include <omp.h>

#include <chrono>
#include <memory>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {

// After work `number` of a stream.
class AsynchronousStream::Point final : public Event::Work {
 public:
  explicit Point(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}

  // By the stream, once it knows.
  void set_number(int64_t number) { number_ = number; }
  void Reach() {
    const std::lock_guard lock(queue_->mutex);
    reached_ = true;
    queue_->changed.notify_all();
  }
  void Wait() override {
    std::unique_lock lock(queue_->mutex);
    Await();
    queue_->changed.wait(lock, [this] { return reached_; });
  }
  bool Test() override {
    const std::lock_guard lock(queue_->mutex);
    Await();
    return reached_;
  }

 private:
  // With the mutex.
  void Await() {
    if (queue_->awaited >= number_) return;
    queue_->awaited = number_;
    queue_->changed.notify_all();
  }

  const std::shared_ptr<Queue> queue_;
  int64_t number_ = 0;
  bool reached_ = false;  // guarded by the queue's mutex
};

AsynchronousStream::AsynchronousStream(uint64_t seed, bool late)
    : Stream(/*synchronous=*/false),
      late_(late),
      random_(static_cast<std::minstd_rand::result_type>(seed + 1)),
      thread_([this, threads = omp_get_max_threads()] { Run(threads); }) {}

AsynchronousStream::~AsynchronousStream() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->ends = true;
  }
  queue_->changed.notify_all();
  thread_.join();
}

Event AsynchronousStream::Record() {
  auto point = std::make_shared<Point>(queue_);
  point->set_number(Give([point] { point->Reach(); }));
  return Event(std::move(point));
}

void AsynchronousStream::Enqueue(std::function<void()> work) {
  Give(std::move(work));
}

int64_t AsynchronousStream::Give(std::function<void()> work) {
  int64_t number = 0;
  {
    const std::lock_guard lock(queue_->mutex);
    CHECK(!queue_->ends) << "work for a stream that has ended";
    queue_->work.push_back(std::move(work));
    number = ++queue_->given;
  }
  queue_->changed.notify_all();
  return number;
}

void AsynchronousStream::Run(int threads) {
  omp_set_num_threads(threads);
  while (true) {
    std::function<void()> work;
    {
      std::unique_lock lock(queue_->mutex);
      queue_->changed.wait(lock, [this] {
        return queue_->ends ||
               queue_->taken < (late_ ? queue_->awaited : queue_->given);
      });
      if (queue_->work.empty()) return;
      work = std::move(queue_->work.front());
      queue_->work.pop_front();
      ++queue_->taken;
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
