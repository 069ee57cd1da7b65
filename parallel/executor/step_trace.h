// When a rank's streams ran the instructions of a step, by the clock of its
// device: the host, which may be ahead of it, only asks at the end.

#ifndef TRIREME_PARALLEL_EXECUTOR_STEP_TRACE_H_
#define TRIREME_PARALLEL_EXECUTOR_STEP_TRACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/stream_mark.h"
#include "scheduler/simulator/trace.h"

namespace trireme {

class StepTrace {
 public:
  // A step that begins once the compute stream is done with what it was given
  // before, for which the host waits: both clocks are read there.
  explicit StepTrace(Device& device);

  // The stream is about to be given an instruction; nothing else is begun
  // before its End.
  void Begin(Stream& stream);
  // It has been given all of it. The event's times are left to Finish.
  void End(Stream& stream, TraceEvent event);
  // Once all that was ended is done: the events, in the order of their ends.
  std::vector<TraceEvent> Finish();

 private:
  struct Entry {
    TraceEvent event;
    std::shared_ptr<StreamMark> begin, end;
  };

  std::shared_ptr<StreamMark> start_;
  int64_t start_ns_;
  std::shared_ptr<StreamMark> begun_;
  std::vector<Entry> entries_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_STEP_TRACE_H_
