// Work on hostile input by code that may not hold against it: in a child
// process, of which no crash, hang or hunger for memory reaches this one.

#ifndef TRIREME_RUNTIME_CORE_LIMITED_PROCESS_H_
#define TRIREME_RUNTIME_CORE_LIMITED_PROCESS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace trireme {

struct ProcessLimits {
  // Of address space, beyond what this process has.
  int64_t memory_bytes = int64_t{1} << 30;
  // Of wall time, and of processor time.
  double seconds = 60;
  // What the work may return.
  int64_t max_result_bytes = int64_t{1} << 28;
};

// What `work` returns or fails with, computed in a copy of this process: it
// sees all memory as it is now, and changes nothing here. It may not write
// files, print, or start threads. Errors of its limits: ResourceExhausted;
// of its crash: DataLoss, naming the signal. What another try may not meet:
// Unavailable where others ended the process, Internal where there is none to
// be had.
//
// Any thread. Not where MPI is running, which does not survive a fork
// everywhere.
absl::StatusOr<std::string> RunLimited(
    const std::function<absl::StatusOr<std::string>()>& work,
    const ProcessLimits& limits);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_LIMITED_PROCESS_H_
