// Template bodies of parameter.h.

#ifndef TRIREME_RUNTIME_AUTOGRAD_PARAMETER_INL_H_
#define TRIREME_RUNTIME_AUTOGRAD_PARAMETER_INL_H_

#include <utility>
#include <vector>

#include "runtime/autograd/parameter.h"

namespace trireme {

template <typename F>
void ForEachLocalRun(const Shape& global, const std::vector<ShardedDim>& shards,
                     F&& f) {
  const Shape local = LocalShape(global, shards);
  std::vector<int64_t> start(global.rank(), 0);
  int innermost_sharded = -1;
  for (const ShardedDim& shard : shards) {
    const int dim = global.Normalize(shard.dim);
    start[dim] = shard.index * local.dim(dim);
    innermost_sharded = std::max(innermost_sharded, dim);
  }
  if (innermost_sharded < 0) {
    f(int64_t{0}, int64_t{0}, global.num_elements());
    return;
  }
  // Dims inside the innermost sharded one are whole, so a run spans it too.
  const int64_t run =
      local.dim(innermost_sharded) * local.elements_after(innermost_sharded);
  const int64_t runs = local.num_elements() / std::max<int64_t>(run, 1);
  for (int64_t r = 0; r < runs; ++r) {
    int64_t rest = r;
    int64_t global_offset =
        start[innermost_sharded] * global.elements_after(innermost_sharded);
    for (int dim = innermost_sharded - 1; dim >= 0; --dim) {
      const int64_t at = rest % local.dim(dim);
      rest /= local.dim(dim);
      global_offset += (start[dim] + at) * global.elements_after(dim);
    }
    f(r * run, global_offset, run);
  }
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_PARAMETER_INL_H_
