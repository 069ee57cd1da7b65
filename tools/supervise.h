// Staying beside what a launch started, and ending it.

#ifndef TRIREME_TOOLS_SUPERVISE_H_
#define TRIREME_TOOLS_SUPERVISE_H_

#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/core/timeouts.h"
#include "tools/launch_log.h"
#include "tools/mpirun.h"
#include "trainer/coordinator/job_watch.h"

namespace trireme {

// SIGTERM, SIGINT, SIGUSR1 and SIGCHLD, to read instead of be interrupted by.
// Made before other threads, which inherit that they are not theirs.
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

// A running mpirun.
struct StartedRanks {
  pid_t mpirun = 0;
  // Not this process's child: a launch before started it.
  bool taken_up = false;
};

// Starts mpirun. Should this process be killed, its ranks go on
// (RankReporter); those that cannot find out, `hear_us` false, save and end by
// mpirun's word. Errors: mpirun cannot be run.
absl::StatusOr<StartedRanks> StartRanks(std::vector<std::string> mpirun,
                                        const Environment& environment,
                                        const SignalQueue& signals,
                                        bool hear_us);

struct SupervisedEnd {
  // What this program's is to be: mpirun's, or 128 + the signal by which it was
  // asked to stop. Above 128 also where a signal ended a rank.
  int status = 0;
  bool asked = false;
  // Ranks were silent, and the others were ended; or what was taken up ended
  // without a word.
  bool lost = false;
};

// Stays beside what was started to its end. Nothing of that is left on this
// machine then. `on_training` is called once, when a step is done.
// `out_of_reach` is called several times a second: whether a machine whose
// ranks are silent does not answer either. mpirun would wait for its daemon
// there and is then killed, also while lost ranks are ended; by that the other
// daemons know to end theirs.
//
// SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 ask the ranks to save and end, a second
// one, other than SIGUSR1, ends them at once. A rank that is lost leaves others
// waiting for what will not come: all of them are ended, with status 1.
SupervisedEnd Supervise(
    const StartedRanks& ranks, const SignalQueue& signals,
    const Timeouts& timeouts, JobWatch& watch, const LaunchLog& log,
    const std::function<void()>& on_training,
    const std::function<bool(JobWatch::Clock::time_point)>& out_of_reach);

}  // namespace trireme

#endif  // TRIREME_TOOLS_SUPERVISE_H_
