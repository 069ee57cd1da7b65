// A traced step as it was and as the simulator has it, in one file of rank 0's.

#ifndef TRIREME_TRAINER_RUN_TIMELINES_H_
#define TRIREME_TRAINER_RUN_TIMELINES_H_

#include <span>
#include <vector>

#include "parallel/grid/process_grid.h"
#include "runtime/comm/control.h"
#include "scheduler/simulator/trace.h"

namespace trireme {

// What the ranks of the first pipeline (coordinate 0 on all axes but pp)
// measured of one step, on rank 0; empty on others. Ranks are pipeline ranks,
// and each rank's times count from its own first event: hosts' clocks have no
// common zero, and all begin a step together. `own`: this rank's events.
// Collective over the world.
std::vector<TraceEvent> GatherTrace(const ProcessGrid& grid, Control& control,
                                    std::span<const TraceEvent> own);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_TIMELINES_H_
