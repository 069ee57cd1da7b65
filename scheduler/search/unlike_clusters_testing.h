// For tests: small clusters whose nodes and links are all unlike, and a job on
// them.

#ifndef TRIREME_SCHEDULER_SEARCH_UNLIKE_CLUSTERS_TESTING_H_
#define TRIREME_SCHEDULER_SEARCH_UNLIKE_CLUSTERS_TESTING_H_

#include <cstdint>
#include <vector>

#include "scheduler/search/search.h"

namespace trireme {

// A node for each of `devices`, up to three times as slow as another; every
// direction of every link has a rate of its own, up to fifty times as fast as
// another. The same for a seed on every machine.
PlannerInput UnlikeCluster(const std::vector<uint32_t>& devices, uint32_t seed);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_UNLIKE_CLUSTERS_TESTING_H_
