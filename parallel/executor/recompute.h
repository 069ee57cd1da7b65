// Activation recomputation of a block with axis states: see Tape::Checkpoint.

#ifndef TRIREME_PARALLEL_EXECUTOR_RECOMPUTE_H_
#define TRIREME_PARALLEL_EXECUTOR_RECOMPUTE_H_

#include <functional>
#include <string_view>
#include <vector>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"

namespace trireme {

using ShardedBlock = std::function<std::vector<ShardedVariable>(
    ForwardContext&, const std::vector<ShardedVariable>&)>;

// Runs `block`, keeping its inputs only; backward runs it again, collectives
// included. Adds the block's forward to the backward's FLOPs and volume.
std::vector<ShardedVariable> Recompute(
    ForwardContext& context, std::string_view name,
    const std::vector<ShardedVariable>& inputs, ShardedBlock block);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_RECOMPUTE_H_
