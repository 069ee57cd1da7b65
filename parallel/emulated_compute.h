// Stands in for arithmetic where a dry device does none: a unit of the model
// takes as long as it is said to take, in sleep. With communicators that move
// real bytes (comm/emulated.h) a few processors then show what a plan does on
// the network of a cluster whose devices they are not.

#ifndef TRIREME_PARALLEL_EMULATED_COMPUTE_H_
#define TRIREME_PARALLEL_EMULATED_COMPUTE_H_

#include <map>
#include <utility>

namespace trireme {

// Seconds of one microbatch in one unit, without communication.
struct UnitSeconds {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
};

class EmulatedCompute {
 public:
  // A unit of one of the rank's chunks; those without figures take no time.
  void SetUnit(int chunk, int unit, const UnitSeconds& seconds) {
    units_[{chunk, unit}] = seconds;
  }
  UnitSeconds Unit(int chunk, int unit) const {
    const auto found = units_.find({chunk, unit});
    return found == units_.end() ? UnitSeconds() : found->second;
  }
  // Of the optimizer, for each parameter that this rank updates.
  void set_update_seconds(double seconds) { update_seconds_ = seconds; }
  double update_seconds() const { return update_seconds_; }

  // Sleeps. By how much the system wakes it late is taken off the next call,
  // so that many short computations add up to the right time.
  void Elapse(double seconds);

 private:
  std::map<std::pair<int, int>, UnitSeconds> units_;
  double update_seconds_ = 0;
  double late_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EMULATED_COMPUTE_H_
