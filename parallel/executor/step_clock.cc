#include "parallel/executor/step_clock.h"

#include <ctime>

namespace trireme {
namespace {

double Seconds(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) +
         1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

StepClock::Span StepClock::Now() const {
  Span now;
  now.wall = Seconds(CLOCK_MONOTONIC);
  now.cost = processor_threads_ > 0
                 ? Seconds(CLOCK_PROCESS_CPUTIME_ID) / processor_threads_
                 : now.wall;
  return now;
}

}  // namespace trireme
