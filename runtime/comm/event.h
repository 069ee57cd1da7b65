// A handle on an operation in flight, and what is counted of operations.

#ifndef TRIREME_RUNTIME_COMM_EVENT_H_
#define TRIREME_RUNTIME_COMM_EVENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

namespace trireme {

// Bytes and calls since the start, as sent by this rank (ring algorithms'
// volume: all-reduce 2(n−1)/n, gather and scatter (n−1)/n of the full size).
struct CommunicationStatistics {
  int64_t calls = 0;
  int64_t sent_bytes = 0;
  // Time that Event::Wait() spent blocked.
  double exposed_seconds = 0;

  CommunicationStatistics& operator+=(const CommunicationStatistics& other) {
    calls += other.calls;
    sent_bytes += other.sent_bytes;
    exposed_seconds += other.exposed_seconds;
    return *this;
  }
};

// CommunicationStatistics that several threads may add to.
class TrafficCounter {
 public:
  void CountCall(int64_t sent_bytes) {
    calls_.fetch_add(1, std::memory_order_relaxed);
    sent_bytes_.fetch_add(sent_bytes, std::memory_order_relaxed);
  }
  void CountExposed(std::chrono::nanoseconds time) {
    exposed_ns_.fetch_add(time.count(), std::memory_order_relaxed);
  }
  CommunicationStatistics Get() const {
    return {.calls = calls_.load(std::memory_order_relaxed),
            .sent_bytes = sent_bytes_.load(std::memory_order_relaxed),
            .exposed_seconds = 1e-9 * static_cast<double>(exposed_ns_.load(
                                          std::memory_order_relaxed))};
  }

 private:
  std::atomic<int64_t> calls_ = 0;
  std::atomic<int64_t> sent_bytes_ = 0;
  std::atomic<int64_t> exposed_ns_ = 0;
};

// Default-constructed = already done.
class Event {
 public:
  // What an implementation has in flight.
  class Work {
   public:
    virtual ~Work() = default;
    virtual void Wait() = 0;
    // Makes progress without blocking; true when done.
    virtual bool Test() = 0;
  };

  Event() = default;
  explicit Event(std::shared_ptr<Work> work) : work_(std::move(work)) {}

  // Blocks until the operation is done.
  void Wait() {
    if (!work_) return;
    const auto begin = std::chrono::steady_clock::now();
    work_->Wait();
    if (traffic_) {
      traffic_->CountExposed(std::chrono::steady_clock::now() - begin);
    }
    work_.reset();
    traffic_.reset();
  }
  bool Test() { return !work_ || work_->Test(); }

  // From now on the time that Wait blocks is counted there.
  void CountInto(std::shared_ptr<TrafficCounter> traffic) {
    if (work_) traffic_ = std::move(traffic);
  }

 private:
  std::shared_ptr<Work> work_;
  std::shared_ptr<TrafficCounter> traffic_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_EVENT_H_
