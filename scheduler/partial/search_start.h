// Where a search for paths begins.

#ifndef TRIREME_SCHEDULER_PARTIAL_SEARCH_START_H_
#define TRIREME_SCHEDULER_PARTIAL_SEARCH_START_H_

#include "scheduler/partial/search_state.h"

namespace trireme {

// Greedy list scheduling: microbatches one after another,
// data nodes in turn (shuffled: in any order), each on that path of the fastest
// few which ends the step so far first. False if no attempt keeps the
// constraints.
bool StartGreedily(bool shuffled, SearchState& state);

// One path for all microbatches of a data node, as where microbatches are
// coarsened: few collisions. Data nodes whose fastest path is longest choose
// first. No two of them share a node where that can be. False where the quotas
// do not divide so.
bool StartByDataNode(SearchState& state);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_SEARCH_START_H_
