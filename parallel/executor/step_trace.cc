#include "parallel/executor/step_trace.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {

StepTrace::StepTrace(Device& device) {
  start_ = device.stream().Mark();
  start_->Wait();
  start_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                  std::chrono::steady_clock::now().time_since_epoch())
                  .count();
}

void StepTrace::Begin(Stream& stream) { begun_ = stream.Mark(); }

void StepTrace::End(Stream& stream, TraceEvent event) {
  CHECK(begun_ != nullptr) << event.name;
  entries_.push_back(
      {std::move(event), std::exchange(begun_, nullptr), stream.Mark()});
}

std::vector<TraceEvent> StepTrace::Finish() {
  std::vector<TraceEvent> events;
  for (Entry& entry : entries_) {
    entry.end->Wait();
    const auto ns = [](double seconds) {
      return static_cast<int64_t>(std::llround(1e9 * seconds));
    };
    entry.event.start_ns = start_ns_ + ns(entry.begin->SecondsSince(*start_));
    entry.event.duration_ns = ns(entry.end->SecondsSince(*entry.begin));
    events.push_back(std::move(entry.event));
  }
  entries_.clear();
  return events;
}

}  // namespace trireme
