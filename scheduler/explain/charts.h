// Pictures of a predicted step as SVG, self-contained.

#ifndef TRIREME_SCHEDULER_EXPLAIN_CHARTS_H_
#define TRIREME_SCHEDULER_EXPLAIN_CHARTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/program/memory.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {

// One lane per pipeline rank over time: forwards light, backwards full, weight
// gradients in between, each microbatch in its colour; below, thinner,
// reductions and gathers and, with offload, copies to the device, copies to the
// host, and the host's optimizer. `title` is shown above. At most `max_lanes`
// ranks, evenly chosen.
std::string TimelineSvg(const Program& program, const Simulation& simulation,
                        const std::string& title, int32_t max_lanes = 32);

// One bar per pipeline rank: its peak by category, and its limit.
std::string MemorySvg(const std::vector<MemoryBytes>& peak,
                      const std::vector<int64_t>& limit,
                      const std::string& title, int32_t max_lanes = 32);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_CHARTS_H_
