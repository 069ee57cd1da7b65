#include "parallel/head_exchange.h"

#include "parallel/dim_collectives.h"
#include "runtime/core/log.h"

namespace trireme {

Tensor ExchangeHeadsForTokens(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  CHECK_EQ(x.dim(2) % (parts * ranks), 0) << x.shape();
  return ExchangeSlices(group, x.Reshape({x.dim(0), x.dim(1), parts, -1}),
                        /*from_dim=*/1, /*to_dim=*/3, name)
      .Reshape({x.dim(0), ranks * x.dim(1), x.dim(2) / ranks});
}

Tensor ExchangeTokensForHeads(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  return ExchangeSlices(group, x.Reshape({x.dim(0), x.dim(1), parts, -1}),
                        /*from_dim=*/3, /*to_dim=*/1, name)
      .Reshape({x.dim(0), x.dim(1) / ranks, ranks * x.dim(2)});
}

Tensor TakeHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return SliceDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1, group.size(),
                  group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor SpreadHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return PlaceInDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1,
                    group.size(), group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor GatherHeads(Communicator& group, const Tensor& x,
                   std::string_view name) {
  if (group.size() == 1) return x;
  return StartGather(group, x, 2, name).Wait();
}

}  // namespace trireme
