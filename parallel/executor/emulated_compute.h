// Stands in for arithmetic where a dry device does none: a unit of the model
// takes as long as it is said to take, in sleep. With communicators that move
// real bytes (comm/emulated.h) a few processors then show what a plan does on
// the network of a cluster whose devices they are not.
//
// The thread that sleeps is the compute stream. What runs beside it (copies
// between device and host, updates on the host) takes its time on a resource of
// its own, in the order in which it is given, and whoever needs it sleeps until
// it is over.

#ifndef TRIREME_PARALLEL_EXECUTOR_EMULATED_COMPUTE_H_
#define TRIREME_PARALLEL_EXECUTOR_EMULATED_COMPUTE_H_

#include <chrono>
#include <map>
#include <utility>

#include "scheduler/program/instruction_costs.h"
#include "scheduler/program/program.h"

namespace trireme {

// Seconds of one microbatch in one unit, without communication.
struct UnitSeconds {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
};

class EmulatedCompute {
 public:
  enum class Time {
    kSleep,
    // Nobody sleeps: a clock of its own goes on by what computation takes. For
    // ranks that no other's messages reach.
    kVirtual,
  };
  explicit EmulatedCompute(Time time = Time::kSleep) : time_(time) {}

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

  // What the instructions of a unit of a Program with offload take that run
  // beside computation.
  void SetBeside(int chunk, int unit, const UnitCost& seconds) {
    beside_[{chunk, unit}] = seconds;
  }
  UnitCost Beside(int chunk, int unit) const {
    const auto found = beside_.find({chunk, unit});
    return found == beside_.end() ? UnitCost() : found->second;
  }

  // Seconds of a clock that does not know of late wake-ups, or the virtual one.
  double Now() const;
  // Begins when `ready` and what the resource was given before are over;
  // returns when it ends.
  double Occupy(Resource resource, double ready, double seconds);
  void SleepUntil(double time) { Elapse(time - Now()); }

  // Lets the time pass. By how much the system wakes a sleeper late is taken
  // off the next call, so that many short computations add up to the right
  // time.
  void Elapse(double seconds);

 private:
  using Clock = std::chrono::steady_clock;

  std::map<std::pair<int, int>, UnitSeconds> units_;
  double update_seconds_ = 0;
  std::map<std::pair<int, int>, UnitCost> beside_;
  std::map<Resource, double> free_;
  const Time time_;
  const Clock::time_point begin_ = Clock::now();
  double late_ = 0;
  double virtual_s_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_EMULATED_COMPUTE_H_
