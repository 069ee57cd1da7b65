// What is counted of a communicator's operations.

#ifndef TRIREME_RUNTIME_COMM_TRAFFIC_H_
#define TRIREME_RUNTIME_COMM_TRAFFIC_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace trireme {

// Bytes and calls since the start, as sent by this rank (ring algorithms'
// volume: all-reduce 2(n−1)/n, gather and scatter (n−1)/n of the full size).
struct CommunicationStatistics {
  int64_t calls = 0;
  int64_t sent_bytes = 0;
  // Of copies that its user has found not to need sending.
  int64_t saved_bytes = 0;
  // Time that streams and the host were blocked by events of operations.
  double exposed_seconds = 0;

  CommunicationStatistics& operator+=(const CommunicationStatistics& other) {
    calls += other.calls;
    sent_bytes += other.sent_bytes;
    saved_bytes += other.saved_bytes;
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
  void CountSaved(int64_t bytes) {
    saved_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  void CountExposed(std::chrono::nanoseconds time) {
    exposed_ns_.fetch_add(time.count(), std::memory_order_relaxed);
  }
  // What events add to; see Event::CountInto.
  std::atomic<int64_t>& exposed_ns() { return exposed_ns_; }
  CommunicationStatistics Get() const {
    return {.calls = calls_.load(std::memory_order_relaxed),
            .sent_bytes = sent_bytes_.load(std::memory_order_relaxed),
            .saved_bytes = saved_bytes_.load(std::memory_order_relaxed),
            .exposed_seconds = 1e-9 * static_cast<double>(exposed_ns_.load(
                                          std::memory_order_relaxed))};
  }

 private:
  std::atomic<int64_t> calls_ = 0;
  std::atomic<int64_t> sent_bytes_ = 0;
  std::atomic<int64_t> saved_bytes_ = 0;
  std::atomic<int64_t> exposed_ns_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_TRAFFIC_H_
