// A low-rank adapter beside a linear layer: y += scale·B·(A·x), with A
// [groups, rank, in] and B [parts, out/parts, rank]
// (parallel/trained_parameters.h). A layer whose parts are layers of their own
// elsewhere (q, k, v) has a group for each; one group is left out of A's shape.
//
// The factors are sharded as the weight is: beside a column-parallel layer A is
// whole, and B has the rank's output channels; beside a row-parallel one A has
// its input channels, and B is whole. What crosses tp is the product A·x
// [.., rank] alone.

#ifndef TRIREME_PARALLEL_LOW_RANK_ADAPTER_H_
#define TRIREME_PARALLEL_LOW_RANK_ADAPTER_H_

#include <string>
#include <vector>

#include "parallel/axis_state.h"
#include "parallel/context.h"
#include "parallel/parameter_store.h"

namespace trireme {

// The weight beside which an adapter lies.
struct AdaptedWeight {
  std::string layer;
  int64_t in = 0;
  int64_t out = 0;
  int parts = 1;
  int groups = 1;                         // 1 or parts
  std::vector<ShardedDim> input_shards;   // of [in]
  std::vector<ShardedDim> output_shards;  // of [out/parts]
  // The layer whose adapter's B this one's product goes through, its own but in
  // a sum of layers (RowParallelLinear::ForwardSum).
  std::string output_layer;
};

class LowRankAdapter {
 public:
  // None: Up and Down must not be called.
  LowRankAdapter() = default;
  // With its parameters, if the store's rules adapt weight.output_layer.
  LowRankAdapter(ParameterStore& store, const AdaptedWeight& weight);

  bool exists() const { return a_ != nullptr; }
  // scale·A·x, in x's states; where x's channels are sharded, a part of a sum.
  ShardedVariable Down(ForwardContext& context, const ShardedVariable& x) const;
  // y + B·low for low as Down gives it, brought by the caller to y's states, or
  // to Replicate where y's channels are sharded.
  ShardedVariable AddUp(ForwardContext& context, const ShardedVariable& low,
                        const ShardedVariable& y) const;

 private:
  Parameter* a_ = nullptr;
  Parameter* b_ = nullptr;  // null: another layer's
  double scale_ = 1;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LOW_RANK_ADAPTER_H_
