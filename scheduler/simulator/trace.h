// Timed events of a run, simulated or real, and their file: Chrome trace JSON
// (chrome://tracing, Perfetto). The Executor and the simulator write the same
// events, so that a prediction and a measurement can be laid side by side.

#ifndef TRIREME_SCHEDULER_SIMULATOR_TRACE_H_
#define TRIREME_SCHEDULER_SIMULATOR_TRACE_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace trireme {

struct TraceEvent {
  // "Forward mb=0 chunk=0".
  std::string name;
  // "compute", "communication", ...: what a viewer colours and filters by.
  std::string category;
  // Shown as a process.
  int32_t rank = 0;
  // Shown as a thread of the rank: "compute", "to 1 activation", "gradients".
  // Events of one track should not overlap.
  std::string track;
  // Since the start of the trace.
  int64_t start_ns = 0;
  int64_t duration_ns = 0;
  // Shown when the event is clicked.
  std::vector<std::pair<std::string, std::string>> args;
};

// Writes the events as one JSON object, one line an event. Text that is not
// UTF-8 is replaced, not refused.
void WriteChromeTrace(const std::vector<TraceEvent>& events, std::ostream& out);

// A step as it was measured above the same step as it was predicted: for each
// rank first the one, then the other, on tracks of the same names.
struct Timelines {
  std::vector<TraceEvent> measured;
  std::vector<TraceEvent> predicted;
};
void WriteChromeTrace(const Timelines& timelines, std::ostream& out);

// The same into a file: beside `path`, synced, then renamed.
absl::Status WriteChromeTraceFile(const std::vector<TraceEvent>& events,
                                  const std::string& path);
absl::Status WriteChromeTraceFile(const Timelines& timelines,
                                  const std::string& path);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_TRACE_H_
