// The steps of the search: what it changes before it measures again.

#ifndef TRIREME_SCHEDULER_SKIP_SEARCH_MOVES_H_
#define TRIREME_SCHEDULER_SKIP_SEARCH_MOVES_H_

#include "scheduler/skip/search_state.h"

namespace trireme {

// Changes the choice a little, at random: preferences of nodes, the order or
// the nodes of paths, some microbatches' paths altogether or, with
// `free_groups`, the groups. False if the change breaks a constraint; whoever
// called then sets the choice back.
bool ChangeAnything(SearchState& state, bool free_groups);

// Changes that keep all microbatches of a data node on one path.
bool ChangeWholeBlocks(SearchState& state);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SKIP_SEARCH_MOVES_H_
