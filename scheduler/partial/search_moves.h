// The steps of the search: what it changes before it measures again.

#ifndef TRIREME_SCHEDULER_PARTIAL_SEARCH_MOVES_H_
#define TRIREME_SCHEDULER_PARTIAL_SEARCH_MOVES_H_

#include "scheduler/partial/search_state.h"

namespace trireme {

// Changes the choice a little, at random: preferences of nodes, the order or
// the nodes of paths, or some microbatches' paths altogether. False if the
// change breaks a constraint; whoever called then sets the choice back.
bool ChangeAnything(SearchState& state);

// Changes that keep all microbatches of a data node on one path.
bool ChangeWholeBlocks(SearchState& state);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_SEARCH_MOVES_H_
