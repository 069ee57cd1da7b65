// The losses of a router (router.h says which), each a part of a mean over the
// whole job's batch: the same however samples and tokens are divided and, but
// for those by microbatch, microbatches too.

#ifndef TRIREME_MOE_ROUTER_LOSSES_H_
#define TRIREME_MOE_ROUTER_LOSSES_H_

#include "moe/moe_config.h"
#include "moe/moe_tokens.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/autograd/tape.h"

namespace trireme {

// What they read of a rank's tokens.
struct RouterScores {
  // [b·s, experts], of which b samples.
  Variable logits;
  int64_t samples = 0;
  AxisStates states;
  // The logits without noise.
  Tensor noiseless;
  // Their softmax makes scores that sum to 1.
  Variable log_scores;
  // Int32 [b·s, k]: what tokens ask for; −1 for padding.
  Tensor demanded;
  // [experts], of the compute type, where the batch is balanced: of the step
  // before, E times the share of each, less 1.
  Tensor excess_shares;
  // [experts], null where the variation is not the batch's: of the step before,
  // an expert's sum of scores, and of chances to be chosen, over what it is
  // where experts are used alike, less 1.
  Parameter* excess_importance = nullptr;
  Parameter* excess_load = nullptr;
};

// A collective over the ranks of tp and cp that share samples.
void AddRouterLosses(ForwardContext& context, const MoeConfig& config,
                     const RouterScores& scores, const MoeTokens& tokens);

}  // namespace trireme

#endif  // TRIREME_MOE_ROUTER_LOSSES_H_
