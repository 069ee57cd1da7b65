// A handle on work in flight: of a stream up to some point, or of a
// communicator. Streams wait for it without the host; the host waits for it
// where it needs a value.

#ifndef TRIREME_RUNTIME_DEVICE_EVENT_H_
#define TRIREME_RUNTIME_DEVICE_EVENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

namespace trireme {

class Device;
class Stream;

// Default-constructed = already done.
class Event {
 public:
  // What an implementation has in flight.
  class Work {
   public:
    virtual ~Work() = default;
    // Blocks the calling thread until it is done. Thread-safe, since streams
    // of asynchronous devices call it on threads of their own.
    virtual void Wait() = 0;
    // Makes progress without blocking; true when done.
    virtual bool Test() = 0;
    // Has `stream` wait without the host, where the two know each other; else
    // false, and nothing is done.
    virtual bool OrderBefore(Stream&) { return false; }
  };

  Event() = default;
  explicit Event(std::shared_ptr<Work> work) : work_(std::move(work)) {}

  // What `stream` is given from now on runs after the event's work. The host
  // goes on, unless the stream is its own.
  void Wait(Stream& stream);
  // The same for the current stream of the device whose tensors the work
  // touches; blocks the host where it touches none.
  void Wait();
  // Blocks the host until the work is done.
  void Synchronize() {
    if (work_) std::exchange(*this, Event()).Block();
  }
  // Whether the host may take the work as done.
  bool Test() { return !work_ || work_->Test(); }

  // False where the work was done before the host was told of it.
  bool in_flight() const { return work_ != nullptr; }

  // The work touches tensors of `device`, which outlives it.
  void set_device(Device& device) { device_ = &device; }
  // From now on the time for which the event blocks anyone is added there.
  void CountInto(std::shared_ptr<std::atomic<int64_t>> blocked_ns) {
    if (work_) blocked_ns_ = std::move(blocked_ns);
  }

 private:
  void Block() const {
    const auto begin = std::chrono::steady_clock::now();
    work_->Wait();
    if (!blocked_ns_) return;
    const std::chrono::nanoseconds blocked =
        std::chrono::steady_clock::now() - begin;
    blocked_ns_->fetch_add(blocked.count(), std::memory_order_relaxed);
  }

  std::shared_ptr<Work> work_;
  std::shared_ptr<std::atomic<int64_t>> blocked_ns_;
  Device* device_ = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_EVENT_H_
