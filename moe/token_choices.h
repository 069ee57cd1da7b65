// The routes of this rank's tokens, where they depend on biases, groups or the
// other tokens of a sample: those of all ranks that share it are asked for
// their scores, and each makes the whole sample's choices.

#ifndef TRIREME_MOE_TOKEN_CHOICES_H_
#define TRIREME_MOE_TOKEN_CHOICES_H_

#include <string>

#include "moe/moe_config.h"
#include "moe/moe_tokens.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Int32 [t, k], with k the experts where they choose. Padding has −1 in the
// last two.
struct TokenChoices {
  // What each token asked for, for its weights.
  Tensor asked;
  // The same without padding, which balance is measured by.
  Tensor demanded;
  // The same without what capacities drop.
  Tensor routed;
};

// Of scores[b·s, experts], each expert's plus its bias (one value each, or
// undefined). `states`: of the tokens. Where choices depend on the sample, a
// collective over the ranks of tp and cp that share it.
TokenChoices ChooseRoutes(ParallelContext& context, const AxisStates& states,
                          const std::string& name, const MoeConfig& config,
                          const Tensor& scores, const Tensor& bias,
                          int64_t samples, const MoeTokens& tokens);

// `choices` with −1 for padding.
Tensor WithoutPaddingRoutes(const Tensor& choices, const MoeTokens& tokens);

}  // namespace trireme

#endif  // TRIREME_MOE_TOKEN_CHOICES_H_
