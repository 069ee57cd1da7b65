// The memory of a rank in simulated time.

#ifndef TRIREME_SCHEDULER_SIMULATOR_PEAK_H_
#define TRIREME_SCHEDULER_SIMULATOR_PEAK_H_

#include <cstdint>
#include <span>

#include "scheduler/program/memory.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {

// The rank's memory at its peak. `held`, by instruction of its list: from when
// to when it takes effect; of a Recv from when it is posted, of a Send from
// when its buffer is made, both until the message has arrived. Buffers of sends
// are as large as the receiver's.
MemoryBytes SimulatedPeak(const Program& program, int32_t rank,
                          std::span<const Interval> held,
                          const MemoryModel& memory);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_PEAK_H_
