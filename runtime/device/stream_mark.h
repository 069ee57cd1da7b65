// A point in a stream that knows when the stream came to it, by the clock of
// its device: the host only asks. Marks are of Stream::Mark (stream.h).

#ifndef TRIREME_RUNTIME_DEVICE_STREAM_MARK_H_
#define TRIREME_RUNTIME_DEVICE_STREAM_MARK_H_

#include <atomic>
#include <chrono>
#include <utility>

#include "runtime/device/event.h"

namespace trireme {

class StreamMark {
 public:
  StreamMark() = default;
  virtual ~StreamMark() = default;
  StreamMark(const StreamMark&) = delete;
  StreamMark& operator=(const StreamMark&) = delete;

  // Whether the stream has come to it.
  virtual bool Reached() = 0;
  // Blocks the host until it has.
  virtual void Wait() = 0;
  // Since a mark of the same device, of any of its streams. Both are reached.
  virtual double SecondsSince(const StreamMark& earlier) const = 0;
};

// Of streams of the host, by the host's clock.
class HostMark final : public StreamMark {
 public:
  // The stream has come to it. `event` is set before or after.
  void Reach() {
    time_ = std::chrono::steady_clock::now();
    reached_.store(true, std::memory_order_release);
  }
  void set_event(Event event) { event_ = std::move(event); }

  bool Reached() override { return reached_.load(std::memory_order_acquire); }
  void Wait() override { event_.Synchronize(); }
  double SecondsSince(const StreamMark& earlier) const override {
    return std::chrono::duration<double>(
               time_ - static_cast<const HostMark&>(earlier).time_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point time_;
  std::atomic<bool> reached_ = false;
  Event event_;  // behind it
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_STREAM_MARK_H_
