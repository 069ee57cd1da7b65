// RMSNorm over a width that an axis shards: q and k normed over all heads,
// which tp spreads over ranks.

#ifndef TRIREME_PARALLEL_SPLIT_NORM_H_
#define TRIREME_PARALLEL_SPLIT_NORM_H_

#include "parallel/axis_state.h"
#include "parallel/context.h"

namespace trireme {

// y = x·weight/rms(x), the root mean square taken over x's last dim on all
// ranks of `axis`, over which x[.., width/n] is Shard(last) and the weight
// [width] sharded alike. Refuses any other state. The ranks of `axis` add one
// number per row in forward and one in backward (fp64).
ShardedVariable SplitRmsNorm(ForwardContext& context, const ShardedVariable& x,
                             Parameter& weight, Axis axis, double eps);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SPLIT_NORM_H_
