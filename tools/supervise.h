// Staying beside what a launch started, and ending it.

#ifndef TRIREME_TOOLS_SUPERVISE_H_
#define TRIREME_TOOLS_SUPERVISE_H_

#include <chrono>
#include <csignal>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/mpirun.h"
#include "trainer/coordinator/job_watch.h"

namespace trireme {

// SIGTERM, SIGINT and SIGCHLD, to read instead of be interrupted by. Made
// before other threads, which inherit that they are not theirs.
class SignalQueue {
 public:
  SignalQueue();
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;
  ~SignalQueue();

  // The next signal; 0 if none comes in `wait`.
  int Next(std::chrono::milliseconds wait) const;
  // What was blocked before, for children.
  const sigset_t& before() const { return before_; }

 private:
  sigset_t signals_{}, before_{};
  int descriptor_ = -1;
};

// Runs mpirun to its end and returns this program's exit status: its own, or
// 128 + the signal by which it was asked to stop.
//
// SIGTERM and SIGINT (Ctrl-C) ask the ranks to save and end, a second one ends
// them at once. Should this process be killed, mpirun hears of it, and the
// ranks save and end. Where all ranks are silent, mpirun is waiting for what
// will not come, a host that is cut off, say: it is ended, and the status is 1.
// Errors: mpirun cannot be run.
absl::StatusOr<int> Supervise(std::vector<std::string> mpirun,
                              const Environment& environment,
                              const SignalQueue& signals, JobWatch& watch);

}  // namespace trireme

#endif  // TRIREME_TOOLS_SUPERVISE_H_
