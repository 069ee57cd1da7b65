// A stream whose work a thread of its own runs, some time after it was given:
// how long after is drawn from a seed, so that streams overtake one another
// wherever no event forbids it.

#ifndef TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "runtime/device/stream.h"

namespace trireme {

class AsynchronousStream final : public Stream {
 public:
  // Its kernels use as many threads as those of the thread that makes it.
  explicit AsynchronousStream(uint64_t seed);
  // All work is done by then.
  ~AsynchronousStream() override;

  Event Record() override;

 private:
  void Enqueue(std::function<void()> work) override;
  void Run(int threads);
  // Lets other streams go first, now and then for long.
  void Pause();

  std::minstd_rand random_;  // of the thread
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<std::function<void()>> queue_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_STREAM_TESTING_H_
