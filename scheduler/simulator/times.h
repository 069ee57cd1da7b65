// What is known so far of when the instructions of one replica run, which ranks
// wait for what is not, and which can go on.

#ifndef TRIREME_SCHEDULER_SIMULATOR_TIMES_H_
#define TRIREME_SCHEDULER_SIMULATOR_TIMES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/simulator/interval.h"
#include "scheduler/simulator/layout.h"

namespace trireme {

class SimulatedTimes {
 public:
  // A time that is not known yet.
  static constexpr double kUnknown = -1;

  explicit SimulatedTimes(const SimulatedProgram& program)
      : waits_for_(program.lists.size(), kNothing) {
    times_.reserve(program.lists.size());
    for (const auto& list : program.lists) {
      times_.emplace_back(list.size(), Interval{kUnknown, kUnknown});
    }
  }

  const Interval& Of(int32_t rank, int32_t index) const {
    return times_[rank][index];
  }
  bool Known(int32_t rank, int32_t index) const {
    return times_[rank][index].end_s != kUnknown;
  }
  // Both ends of an interval are known at once, but where a rank has come to
  // ClipGradients.
  void SetStart(int32_t rank, int32_t index, double start_s) {
    times_[rank][index].start_s = start_s;
  }
  void Set(int32_t rank, int32_t index, const Interval& interval) {
    times_[rank][index] = interval;
  }

  // Until the instruction's end is known.
  void Wait(int32_t rank, int32_t index) { waits_for_[rank] = index; }
  // Whether the rank can go on, now that the instruction's end is known.
  bool Wake(int32_t rank, int32_t index) {
    if (waits_for_[rank] != index) return false;
    waits_for_[rank] = kNothing;
    return true;
  }

  // times[rank][index], for the result.
  std::vector<std::vector<Interval>> Take() { return std::move(times_); }

 private:
  static constexpr int32_t kNothing = -1;

  std::vector<std::vector<Interval>> times_;
  std::vector<int32_t> waits_for_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_TIMES_H_
