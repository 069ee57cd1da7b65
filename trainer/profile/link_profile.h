// Measures the links between a job's ranks.

#ifndef TRIREME_TRAINER_PROFILE_LINK_PROFILE_H_
#define TRIREME_TRAINER_PROFILE_LINK_PROFILE_H_

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace trireme {

// The rounds of a tournament in which every two of n players meet once and none
// plays twice in a round (the circle method). With odd n one rests each round.
std::vector<std::vector<std::pair<int, int>>> RoundRobin(int n);

struct LinkProfileOptions {
  // Messages whose times give latency and bandwidth. The large one grows, up to
  // the largest, until its transfer is most of its time.
  int64_t small_bytes = 1 << 10;
  int64_t large_bytes = 4 << 20;
  int64_t largest_bytes = 64 << 20;
  // Each time is the median of so many.
  int repetitions = 9;
};

// One direction between two nodes, or inside one.
struct LinkMeasurement {
  double latency_s = 0;
  // One rank to one other.
  double bytes_per_s = 0;
  // Between nodes: all ranks of one node to as many of the other at once,
  // together. 0: not measured (one rank), or as much as each alone times their
  // number.
  double shared_bytes_per_s = 0;
  // (largest - smallest) / median: of the repetitions; inside a node of its
  // pairs' medians.
  double spread = 0;
};

struct LinkMeasurements {
  // [from node, to node].
  std::map<std::pair<int, int>, LinkMeasurement> links;
  // By node, where there are more than two: what its ranks send to all other
  // nodes at once, in bytes/s. 0: as much as over each link, together.
  std::vector<double> cards;
};

// Collective. `node_of`: of each rank; a node's ranks are in a row. Inside
// nodes every two ranks exchange messages, as many pairs at once as there are.
// Then nodes meet in a tournament, one direction after the other: first their
// first ranks alone, then all of them at once. Last each node sends to all
// others at once. The result is rank 0's.
LinkMeasurements MeasureLinks(const LinkProfileOptions& options, Device& device,
                              Communicator& world,
                              std::span<const int> node_of);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_LINK_PROFILE_H_
