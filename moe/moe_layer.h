// A mixture of experts in place of an MLP (Shazeer et al., "Outrageously large
// neural networks"; Gale et al., "MegaBlocks"): each token goes through the
// experts that the router chose (router.h), and their results are summed with
// the router's weights; a shared expert, if there is one, sees all.
//
//   y = Σ over a token's experts of weight·expert(x)  [+ shared(x)]
//   expert(x) = W₂·(silu(W_gate·x)∘(W_up·x)) or W₂·gelu(W₁·x), without biases
//
// Experts lie on the expert grid (process_grid.h): a rank owns experts/ep of
// them whole. Tokens are sharded over tp and cp as well as over dp; where tp
// holds them whole each rank routes its share, and the result is gathered.

#ifndef TRIREME_MOE_MOE_LAYER_H_
#define TRIREME_MOE_MOE_LAYER_H_

#include <memory>
#include <string>

#include "moe/moe_config.h"
#include "moe/router.h"
#include "parallel/layers.h"
#include "runtime/autograd/functions.h"

namespace trireme {

class MoeLayer {
 public:
  // ep divides the experts. `keep`: of their activations.
  MoeLayer(ParameterStore& store, const ProcessGrid& grid,
           const std::string& name, int64_t width, const MoeConfig& config,
           Keep keep = Keep::kValue);

  // x and the result are [b, s, width]: over dp Shard(0), over cp Shard(1)
  // where it has ranks, over tp Invariant or Shard(1). All else is refused.
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const MoeTokens& tokens) const;

 private:
  struct Shared {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };

  bool CheckStates(ForwardContext& context, const ShardedVariable& x) const;
  // Of x that tp holds whole.
  ShardedVariable RouteShares(ForwardContext& context, const ShardedVariable& x,
                              const MoeTokens& tokens) const;
  // Of x that is sharded over all axes that have ranks.
  ShardedVariable Route(ForwardContext& context, const ShardedVariable& x,
                        const MoeTokens& tokens) const;

  std::string name_;
  MoeConfig config_;
  Keep keep_;
  Router router_;
  Parameter* in_;
  Parameter* out_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_MOE_LAYER_H_
