// How long a stream works on what it is given between two points, told without
// the host waiting: the points are work of the stream itself.

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "runtime/device/stream.h"

namespace trireme {

// Of one stream: spans follow one another.
class StreamStopwatch {
 public:
  // Calls `give`, which gives the stream its work. On a stream whose work is
  // done as it is given, that is all the time it takes.
  template <typename F>
  void Time(Stream& stream, F&& give) {
    stream.Launch([state = state_] { state->begin = Clock::now(); });
    give();
    stream.Launch([state = state_] {
      const std::chrono::nanoseconds span = Clock::now() - state->begin;
      state->nanoseconds.fetch_add(span.count(), std::memory_order_relaxed);
    });
  }

  // Of spans that are over.
  double seconds() const {
    return 1e-9 * static_cast<double>(
                      state_->nanoseconds.load(std::memory_order_relaxed));
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct State {
    Clock::time_point begin;  // the stream's alone
    std::atomic<int64_t> nanoseconds = 0;
  };

  // What is under way may outlive the watch.
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_
