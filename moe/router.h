// Which experts a token goes to, and with which weights.
//
//   logits  x·Wᵀ in fp32 (fp64 for fp64), whatever x's type; or the cosines of
//           a projection of x and a vector of each expert, times a learnt
//           factor (Chi et al., "On the representation collapse of sparse
//           mixture of experts"); in training plus noise·N(0, 1)/E (Shazeer et
//           al., "Outrageously large neural networks")
//   scores  softmax of the logits over the experts, or the sigmoid of each
//   choice  the k largest scores, of groups, with biases and capacities as
//           expert_choice.h has it; ties to the lowest expert
//   weights the chosen experts' scores, divided by their sum if `normalize`
//
// Losses are means over the tokens, or samples, of the whole job's batch and do
// not depend on how it is divided; those that are asked for by microbatch
// depend on how many samples one has, and on no other division: then a
// microbatch takes the place of each sample below. With p the scores divided by
// their sum:
//
//   balance     E · Σ over experts of f·P for each sample, with f the share of
//               its routes that ask for an expert and P the mean of p over its
//               tokens (Fedus et al., "Switch transformers", section 2.2, by
//               sample): 1 when balanced. Over the batch: f is the share of all
//               routes of the step before (Qiu et al., "Demons in the detail",
//               ask for the batch's, which no backward but the last can know)
//   importance  ½ CV² over the experts of each sample's Σ p and, with noise, ½
//               CV² of the expected number of its tokens that choose an expert
//               (Shazeer et al., section 4 and appendix A), with CV² the
//               variance over the squared mean. Over the batch: with S the sums
//               of all its tokens and S' those of the step before, the
//               expansion of ½ CV² about S' to first order in S, which is a sum
//               over tokens: its slopes are those at S'
//   z           (log Σ exp logits)² (Zoph et al., "ST-MoE", section 3.3)
//
// A bias that balances is a parameter that forgets nothing and learns from no
// loss: its gradient is what its expert's routes are above the mean of the
// whole step's batch, and each step goes against the gradient's sign
// (Parameter::sign_step). So it is saved, resumed and the same on every grid.
// So are the shares and sums of the step before
// (Parameter::replaced_by_gradient).

#ifndef TRIREME_MOE_ROUTER_H_
#define TRIREME_MOE_ROUTER_H_

#include <cstdint>
#include <string>

#include "moe/moe_config.h"
#include "moe/moe_tokens.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

struct Routing {
  Variable weights;  // [t, k] of the compute type
  Tensor experts;    // int32 [t, k]; −1 goes nowhere
  // The same before capacities drop any; undefined where none can be.
  Tensor demanded;
  // Routes of this rank's tokens that any one expert has at most.
  int64_t most_of_expert = 0;
};

class Router {
 public:
  Router(ParameterStore& store, const std::string& name, int64_t width,
         const MoeConfig& config);

  // Of x[b, s, width] with t = b·s; adds the losses. k is top_k, or the number
  // of experts where they choose. A collective over the ranks that share
  // samples.
  Routing Forward(ForwardContext& context, const ShardedVariable& x,
                  const MoeTokens& tokens) const;

 private:
  Variable Logits(ForwardContext& context, const ShardedVariable& x) const;
  // Noise of logits [b·s, E], keyed by sample, position and expert.
  Tensor Noise(const Tensor& logits, int64_t samples,
               const MoeTokens& tokens) const;
  bool ChoosesTopLogits() const;

  std::string name_;
  MoeConfig config_;
  uint64_t noise_seed_;
  // Logits', or the projection's and the experts' vectors where they are
  // cosines.
  Parameter* weight_;
  Parameter* vectors_ = nullptr;
  Parameter* temperature_ = nullptr;
  Parameter* bias_ = nullptr;
  // Of the step before, E times each expert's share of all routes, less 1.
  Parameter* excess_shares_ = nullptr;
  // Of the step before, each expert's Σ p and expected number of tokens, over
  // what they are where experts are used alike, less 1.
  Parameter* excess_importance_ = nullptr;
  Parameter* excess_load_ = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_MOE_ROUTER_H_
