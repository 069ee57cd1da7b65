// RMSNorm of queries and keys over all heads, which tp spreads over ranks
// (HiDream-I1), as against NormHeads of functional.h, which norms each head.

#ifndef TRIREME_PARALLEL_LAYERS_SPLIT_NORM_H_
#define TRIREME_PARALLEL_LAYERS_SPLIT_NORM_H_

#include <cstdint>
#include <string>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/autograd/functions.h"

namespace trireme {

// The weight of such a norm, [width], ones, sharded over tp as the heads are.
Parameter& CreateSplitNorm(ParameterStore& store, const ProcessGrid& grid,
                           const std::string& name, int64_t width);

// q and k of qkv[b, s, 3·heads·head_dim] (q, k, v one after the other, Shard(2)
// over tp) normed by the root mean square over all channels of all heads, and
// rotated if there is a rope; v copied. Refuses any other state. The ranks of
// tp add two numbers for each token in forward and two in backward (fp64).
ShardedVariable NormAcrossHeads(ForwardContext& context,
                                const ShardedVariable& qkv, int64_t head_dim,
                                const HeadNorms& norms);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_SPLIT_NORM_H_
