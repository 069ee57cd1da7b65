// Asking a process to come to a good end: SIGTERM (schedulers, kill), SIGINT
// (Ctrl-C), SIGUSR1 (launch, through mpirun, which forwards that one).

#ifndef TRIREME_RUNTIME_CORE_STOP_SIGNALS_H_
#define TRIREME_RUNTIME_CORE_STOP_SIGNALS_H_

#include <csignal>
#include <vector>

namespace trireme {

// While it exists the first such signal is noted instead of ending the process;
// a second one ends it at once, as without, unless it is SIGUSR1, which may
// come several times for one reason. One at a time in a process.
class StopSignals {
 public:
  StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();

  // The first signal's number; 0: none came.
  int received() const;

 private:
  std::vector<struct sigaction> before_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_STOP_SIGNALS_H_
