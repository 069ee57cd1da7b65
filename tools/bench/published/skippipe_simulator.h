// The simulator that SkipPipe was published with, as it behaves: for
// comparison with the published makespans only. Its peculiarities are kept:
// time advances in ticks of one second of 15 sweeps over the nodes; a node
// takes what is ready in the order of (ready time, arrival); it rests 0.13 s
// after a task that came from another node and 0.09 s after a launch; a full
// node tries again every 0.1 s; links are uncontended; a microbatch of a later
// wave waits for the one before it on the same path.
//
// Source: gensyn-ai/skippipe (MIT), schedulers/com_sym.py and
// create_schedule.py, commit 7f20d8a.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_SIMULATOR_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_SIMULATOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"

namespace trireme {

// A microbatch as that simulator launches it.
struct PublishedLaunch {
  NodePath path;
  // Not before this; data nodes do not launch in a fixed order.
  double ready_s = 0;
  // Launches of one data node and lane run one after another: wave 0 first.
  int32_t lane = 0;
  int32_t wave = 0;
};

// Makespan in seconds, or DeadlineExceeded if a microbatch never ends (the
// published rules can starve one). Launches are taken in the order given.
// Reads forward_s, transfer_s and slots_per_node of the instance.
absl::StatusOr<double> SimulateAsPublished(
    const SkipInstance& instance, const std::vector<PublishedLaunch>& launches);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_SIMULATOR_H_
