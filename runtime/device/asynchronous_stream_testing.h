// A stream whose work a thread of its own runs, some time after it was given:
// how long after is drawn from a seed, so that streams overtake one another
// wherever no event forbids it. A late stream does nothing until somebody waits
// for it, and no more than that: whoever forgets to wait comes first.

#ifndef TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "runtime/device/stream.h"

namespace trireme {

class AsynchronousStream final : public Stream {
 public:
  // Its kernels use as many threads as those of the thread that makes it.
  explicit AsynchronousStream(uint64_t seed, bool late = false);
  // All work is done by then.
  ~AsynchronousStream() override;

  Event Record() override;

 private:
  // Work is numbered from 1.
  struct Queue {
    std::mutex mutex;
    std::condition_variable changed;
    // Guarded by mutex.
    std::deque<std::function<void()>> work;
    int64_t given = 0;
    int64_t taken = 0;
    int64_t awaited = 0;  // the last that somebody waits for
    bool ends = false;
  };
  class Point;

  void Enqueue(std::function<void()> work) override;
  int64_t Give(std::function<void()> work);
  void Run(int threads);
  // Lets other streams go first, now and then for long.
  void Pause();

  const bool late_;
  std::minstd_rand random_;  // of the thread
  // Points may outlive the stream.
  const std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_
