// A mixture of experts in place of an MLP (Shazeer et al., "Outrageously large
// neural networks"; Gale et al., "MegaBlocks"): each token goes through the
// experts that the router chose (router.h), and their results are summed with
// the router's weights; a shared expert, if there is one, sees all.
//
//   y = Σ over a token's experts of weight·expert(x)  [+ shared(x)]
//   expert(x) = W₂·(silu(W_gate·x)∘(W_up·x)) or W₂·gelu(W₁·x); with biases
//               W·x + b for each product
//
// Experts lie on the expert grid (process_grid.h): a rank owns experts/ep of
// them whole, or, of more ranks than experts, ep/experts share one, each with a
// slice of its hidden channels (expert_slices.h). Tokens are sharded over tp
// and cp as well as over dp; where tp holds them whole each rank routes its
// share, and the result is gathered. The first product's biases lie as its
// weights do; the second's are added to the tokens that were routed, once
// however many ranks share an expert, and lie whole on every rank.

#ifndef TRIREME_MOE_MOE_LAYER_H_
#define TRIREME_MOE_MOE_LAYER_H_

#include <functional>
#include <memory>
#include <string>

#include "moe/dispatch.h"
#include "moe/moe_config.h"
#include "moe/router.h"
#include "parallel/layers/layers.h"
#include "runtime/autograd/functions.h"

namespace trireme {

class MoeLayer {
 public:
  // ep divides the experts, or the experts ep, and ep/experts their channels.
  // `keep`: of their activations.
  MoeLayer(ParameterStore& store, const ProcessGrid& grid,
           const std::string& name, int64_t width, const MoeConfig& config,
           Keep keep = Keep::kValue);

  // x and the result are [b, s, width]: over dp Shard(0), over cp Shard(1)
  // where it has ranks, over tp Invariant or Shard(1). All else is refused.
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const MoeTokens& tokens) const;

  // x[t, width] of this rank, by the given routes; those of all ranks of the
  // expert group come together. Without the shared expert. `beside` is called
  // once: what it records is computed while rows travel, where they go in
  // chunks.
  Variable ThroughExperts(ForwardContext& context, const Variable& x,
                          const Routing& routing,
                          const std::function<void()>& beside) const;

 private:
  struct Shared {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };

  bool CheckStates(ForwardContext& context, const ShardedVariable& x) const;
  // Of x that tp holds whole.
  ShardedVariable RouteShares(ForwardContext& context, const ShardedVariable& x,
                              const MoeTokens& tokens,
                              const std::function<void()>& beside) const;
  // Of x that is sharded over all axes that have ranks.
  ShardedVariable Route(ForwardContext& context, const ShardedVariable& x,
                        const MoeTokens& tokens,
                        const std::function<void()>& beside) const;

  DispatchSizes SizesOf(const Tensor& x, const Routing& routing) const;

  std::string name_;
  MoeConfig config_;
  Keep keep_;
  int slices_;  // of an expert; each rank has one where there are several
  Router router_;
  Parameter* in_;
  Parameter* out_;
  // Null without biases.
  Parameter* in_bias_ = nullptr;   // [.., 1]: weights of an input of ones
  Parameter* out_bias_ = nullptr;  // [experts, width]
  std::unique_ptr<Shared> shared_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_MOE_LAYER_H_
