// A low-rank adapter beside a linear layer: y += scale·B·(A·x), with A
// [groups, rank, in] and B [parts, out/parts, rank]
// (parallel/parameters/trained_parameters.h). A layer whose parts are layers of
// their own elsewhere (q, k, v) has a group for each; one group is left out of
// A's shape.
//
// The factors are sharded as the weight is: beside a column-parallel layer A is
// whole, and B has the rank's output channels; beside a row-parallel one A has
// its input channels, and B is whole. What crosses tp is the product A·x
// [.., rank] alone.
//
// Where the weight is decomposed (DoRA), the sum is scaled by output channel:
//
//   y = magnitude/‖W + scale·B·A‖·(W·x + scale·B·(A·x))  and then the bias,
//
// with the norms of rows over all input channels, which are constants of the
// gradient, as in section 4.3 of the paper and in PEFT. They are made anew in
// each pass (runtime/autograd/weight_decomposition.h), in fp64; beside a
// row-parallel layer [out] numbers more cross tp, once a pass. Magnitudes
// [parts, out/parts] are sharded as a bias is, and in the compute type. They
// start as the norms of W's rows: whoever writes W calls InitialMagnitude.

#ifndef TRIREME_PARALLEL_LAYERS_LOW_RANK_ADAPTER_H_
#define TRIREME_PARALLEL_LAYERS_LOW_RANK_ADAPTER_H_

#include <span>
#include <string>
#include <vector>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// The weight beside which an adapter lies.
struct AdaptedWeight {
  std::string layer;
  const Parameter* weight = nullptr;
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
  // Whether the layer's sum is scaled, before its bias is added.
  bool decomposes() const { return decomposes_; }
  // scale·A·x, in x's states; where x's channels are sharded, a part of a sum.
  ShardedVariable Down(ForwardContext& context, const ShardedVariable& x) const;
  // y + B·low for low as Down gives it, brought by the caller to y's states, or
  // to Replicate where y's channels are sharded; scaled, if the weight is
  // decomposed: y is without a bias then. `beside`: the adapter of the layer
  // whose product is in y and low as well (ForwardSum), or null.
  ShardedVariable AddUp(ForwardContext& context, const ShardedVariable& low,
                        const ShardedVariable& y,
                        const LowRankAdapter* beside = nullptr) const;

 private:
  // ‖row of W + scale·B·A‖², whole, of this layer and the one beside it.
  Tensor RowSquares(ForwardContext& context,
                    const LowRankAdapter* beside) const;

  const Parameter* weight_ = nullptr;
  Parameter* a_ = nullptr;
  Parameter* b_ = nullptr;          // null: another layer's
  Parameter* magnitude_ = nullptr;  // null: another layer's, or none
  double scale_ = 1;
  bool decomposes_ = false;
};

// ‖row of W‖ of this rank's rows [parts·out/parts/..], for the weights of one
// output layer as they lie where they are at home: what its magnitudes start
// as. A collective over tp where rows are sharded; empty on a dry device.
std::vector<double> InitialMagnitude(ParallelContext& context,
                                     std::span<const Parameter> weights);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_LOW_RANK_ADAPTER_H_
