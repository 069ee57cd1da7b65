// The legal moves between axis states, each with its conjugate in backward
// (the table of axis_state.h). Anything else is refused through the context.

#ifndef TRIREME_PARALLEL_GRID_TRANSITIONS_H_
#define TRIREME_PARALLEL_GRID_TRANSITIONS_H_

#include <string_view>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"

namespace trireme {

// Brings x to state `to` on `axis`. Blocks until the collective is done. Bytes
// per rank on a ring of n, for a full tensor of B bytes: all-reduce
// 2B(n−1)/n; all-gather and reduce-scatter B(n−1)/n; all-to-all B(n−1)/n².
ShardedVariable Transition(ForwardContext& context, const ShardedVariable& x,
                           Axis axis, AxisState to);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_TRANSITIONS_H_
