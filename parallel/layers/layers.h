// Linear layers whose sharding is decided by the grid they are built on
// (Shoeybi et al., "Megatron-LM", section 3), and adaLN's modulation.
//
// Weights are logical tensors [out, in], or [parts, out/parts, in] where one
// product makes several things (q, k, v; gate and up; the six modulations):
// each part is sharded by itself, so that every rank gets whole heads of q, k
// and v, and the logical tensor is the same on every grid.
//
// Volume per rank and layer, forward + backward, of a row of h elements over n
// ranks: column-parallel 0 + 2h(n−1)/n (hidden behind the weight gradient);
// row-parallel 2h(n−1)/n + 0.
//
// Each layer has an adapter (low_rank_adapter.h) where the store's rules say
// so.

#ifndef TRIREME_PARALLEL_LAYERS_LAYERS_H_
#define TRIREME_PARALLEL_LAYERS_LAYERS_H_

#include <string>
#include <utility>
#include <vector>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/layers/low_rank_adapter.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/autograd/functions.h"

namespace trireme {

struct LinearOptions {
  int parts = 1;
  bool bias = true;
  // Xavier uniform (per part) if kind is kXavierUniform with no fans given.
  Initializer initializer = {.kind = Initializer::Kind::kXavierUniform};
  // Whether an adapter takes the parts for layers of their own.
  bool separate_parts = true;
  // The layer to whose product this one's is added (ForwardSum), and through
  // whose adapter this one's input goes; empty: none.
  std::string added_to;
};

// Whole on every rank of tp.
class ReplicatedLinear {
 public:
  ReplicatedLinear(ParameterStore& store, const std::string& name, int64_t in,
                   int64_t out, const LinearOptions& options = {});
  ShardedVariable Forward(ForwardContext& context,
                          const ShardedVariable& x) const;

 private:
  Parameter* weight_;
  Parameter* bias_ = nullptr;
  LowRankAdapter adapter_;
};

// Output channels sharded over tp. Input over tp: Invariant (the sum of its
// gradient runs behind the weight gradient's product), Shard(1) (its tokens are
// gathered, behind the input gradient's product in backward, and its gradient
// is reduce-scattered behind the weight gradient's), or Replicate (the caller
// sums once for several layers). Output Shard(last).
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(ParameterStore& store, const ProcessGrid& grid,
                       const std::string& name, int64_t in, int64_t out,
                       const LinearOptions& options = {});
  ShardedVariable Forward(ForwardContext& context,
                          const ShardedVariable& x) const;

 private:
  Parameter* weight_;
  Parameter* bias_ = nullptr;
  LowRankAdapter adapter_;
};

// Input channels sharded over tp: input Shard(last); output Invariant, or
// Shard(1) under sequence parallelism. The bias is added once, after the
// reduction.
class RowParallelLinear {
 public:
  RowParallelLinear(ParameterStore& store, const ProcessGrid& grid,
                    const std::string& name, int64_t in, int64_t out,
                    const LinearOptions& options = {});
  // With an activation: of what that makes of x.
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const InputActivation& activation = {}) const;
  // This layer's result for x and another's, which has no bias and is added_to
  // this one, for other_x: their sum, reduced over tp as one. An adapter takes
  // the two for one layer of x and other_x side by side.
  ShardedVariable ForwardSum(
      ForwardContext& context, const ShardedVariable& x,
      const RowParallelLinear& other, const ShardedVariable& other_x,
      const InputActivation& other_activation = {}) const;

 private:
  // Whether the layer takes such an input; refuses it if not.
  bool Takes(ForwardContext& context, const ShardedVariable& x,
             const InputActivation& activation = {}) const;
  // The activated input by itself, and no activation, where an adapter reads
  // it, too; else what is passed in.
  std::pair<ShardedVariable, InputActivation> Activated(
      ForwardContext& context, const ShardedVariable& x,
      const InputActivation& activation) const;
  // Partial over tp; with the bias where FusesBias.
  ShardedVariable Product(ForwardContext& context, const ShardedVariable& x,
                          const InputActivation& activation = {}) const;
  bool FusesBias(const ForwardContext& context) const;
  // From the product, or a sum of products, to the result; without the bias
  // where an adapter decomposes the weight.
  ShardedVariable Reduce(ForwardContext& context, ShardedVariable y) const;
  // The result with what Low gives.
  ShardedVariable Adapted(ForwardContext& context, const ShardedVariable& low,
                          const ShardedVariable& y,
                          const LowRankAdapter* beside = nullptr) const;
  // Partial over tp to the state of results.
  ShardedVariable Sum(ForwardContext& context, const ShardedVariable& y) const;
  // The adapter's product with its input, Partial over tp.
  ShardedVariable Low(ForwardContext& context, const ShardedVariable& x) const;

  Parameter* weight_;
  Parameter* bias_ = nullptr;
  LowRankAdapter adapter_;
};

// The modulations of a block from its conditioning, W·c + b with a
// zero-initialised W[parts, h, h]. Column-sharded, since W is a third of a DiT
// block's parameters and none of its FLOPs; the small result [b, parts·h] is
// gathered. `c` is Replicate over tp: its gradient, partial on every rank, is
// summed once for all blocks of a chunk. Returns `parts` of [b, h]: Invariant,
// or Replicate under sequence parallelism, where each rank modulates its own
// tokens and so has a part of the gradient only.
class AdaptiveModulation {
 public:
  AdaptiveModulation(ParameterStore& store, const ProcessGrid& grid,
                     const std::string& name, int64_t width, int parts);
  std::vector<ShardedVariable> Forward(ForwardContext& context,
                                       const ShardedVariable& c) const;

 private:
  int64_t width_;
  int parts_;
  ColumnParallelLinear linear_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_LAYERS_H_
