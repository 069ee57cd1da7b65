// The two clocks that time a step's instructions: wall time says where a step
// went; cost is what the simulator counts. They differ where ranks share
// processors: there wall time contains the waits for one.

#ifndef TRIREME_PARALLEL_EXECUTOR_STEP_CLOCK_H_
#define TRIREME_PARALLEL_EXECUTOR_STEP_CLOCK_H_

namespace trireme {

class StepClock {
 public:
  // Seconds.
  struct Span {
    double wall = 0;
    double cost = 0;

    Span& operator+=(const Span& other) {
      wall += other.wall;
      cost += other.cost;
      return *this;
    }
    friend Span operator-(const Span& a, const Span& b) {
      return {a.wall - b.wall, a.cost - b.cost};
    }
  };

  // Cost is wall time, or with `processor_threads` above 0 the time that
  // processors spent on this process (threads that move messages included),
  // divided by so many: the threads that compute.
  explicit StepClock(int processor_threads = 0)
      : processor_threads_(processor_threads) {}

  // Since some fixed time.
  Span Now() const;

 private:
  int processor_threads_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_STEP_CLOCK_H_
