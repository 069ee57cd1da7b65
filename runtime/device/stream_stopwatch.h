// How long a stream works on what it is given between two points, by the
// device's clock and without the host waiting.

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "runtime/device/stream.h"
#include "runtime/device/stream_mark.h"

namespace trireme {

// Of one stream: spans follow one another.
class StreamStopwatch {
 public:
  // Calls `give`, which gives the stream its work. On a stream whose work is
  // done as it is given, that is all the time it takes.
  template <typename F>
  void Time(Stream& stream, F&& give) {
    std::shared_ptr<StreamMark> begin = stream.Mark();
    give();
    const std::lock_guard lock(state_->mutex);
    state_->spans.push_back({std::move(begin), stream.Mark()});
    if (state_->spans.size() > kMostSpans) state_->AddUp();
  }

  // Of spans that are over.
  double seconds() const {
    const std::lock_guard lock(state_->mutex);
    state_->AddUp();
    return state_->seconds;
  }

 private:
  // Of which nobody has asked how long they took.
  static constexpr size_t kMostSpans = 256;

  struct Span {
    std::shared_ptr<StreamMark> begin, end;
  };
  struct State {
    void AddUp() {
      while (!spans.empty() && spans.front().end->Reached()) {
        seconds += spans.front().end->SecondsSince(*spans.front().begin);
        spans.pop_front();
      }
    }

    std::mutex mutex;
    std::deque<Span> spans;  // guarded by mutex
    double seconds = 0;      // likewise
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_STOPWATCH_H_
