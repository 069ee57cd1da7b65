// A span of simulated time.

#ifndef TRIREME_SCHEDULER_SIMULATOR_INTERVAL_H_
#define TRIREME_SCHEDULER_SIMULATOR_INTERVAL_H_

namespace trireme {

struct Interval {
  double start_s = 0;
  double end_s = 0;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_INTERVAL_H_
