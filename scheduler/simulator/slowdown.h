// What doing two things at once costs a device.

#ifndef TRIREME_SCHEDULER_SIMULATOR_SLOWDOWN_H_
#define TRIREME_SCHEDULER_SIMULATOR_SLOWDOWN_H_

#include <vector>

#include "scheduler/program/program.h"
#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {

// Seconds that a rank's step is longer than `times`, at which its instructions
// ran at full rates: while compute runs beside a reduction or gather, or beside
// a copy, both take as many times as long as the cost model says. Messages
// between stages are the network's work. To first order: what comes later does
// not move, nor meet other things.
double SlowedSeconds(const std::vector<Instruction>& list,
                     const std::vector<Interval>& times, const CostModel& cost);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_SLOWDOWN_H_
