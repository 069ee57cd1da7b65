// Sizes of a mixture-of-experts layer, resolved.

#ifndef TRIREME_MOE_MOE_CONFIG_H_
#define TRIREME_MOE_MOE_CONFIG_H_

#include <cstdint>

namespace trireme {

struct MoeConfig {
  enum class ExpertKind { kSwiGlu, kGelu };
  enum class RouterKind { kLinear, kCosine };
  enum class Scores { kSoftmax, kSigmoid };
  enum class Choice { kTokens, kExperts };
  enum class Drop { kByOrder, kByScore };
  enum class BalanceOver { kSample, kBatch, kMicrobatch };

  int64_t experts = 0;
  // Experts of each token.
  int64_t top_k = 2;
  // Channels inside an expert.
  int64_t expert_hidden = 0;
  ExpertKind kind = ExpertKind::kSwiGlu;
  // Channels inside a SwiGLU that all tokens go through as well; 0: none.
  int64_t shared_hidden = 0;
  // Experts' products, and those of the shared one, have biases.
  bool bias = false;
  // A token's weights are made to sum to 1.
  bool normalize = false;
  // Of the load-balancing loss and of the router's z-loss; 0: none.
  double balance_weight = 0;
  double z_weight = 0;
  // Whose routes the load-balancing loss takes shares of.
  BalanceOver balance_over = BalanceOver::kSample;
  // Over whose tokens the load-importance loss sums scores.
  BalanceOver importance_over = BalanceOver::kSample;
  // Of the load-importance loss; 0: none.
  double importance_weight = 0;

  RouterKind router = RouterKind::kLinear;
  Scores scores = Scores::kSoftmax;
  Choice choice = Choice::kTokens;
  // Groups of experts, and how many of them a token uses.
  int64_t groups = 1;
  int64_t top_groups = 1;
  // Of an even share of a sample's routes; 0: an expert takes all.
  double capacity_factor = 0;
  Drop drop = Drop::kByOrder;
  // Of the logits in training, times 1/experts; 0: none.
  double noise = 0;
  // Of the bias of each expert, a step; 0: there is none.
  double bias_step = 0;

  // Whether a token's experts depend on the other tokens of its sample.
  bool chooses_by_sample() const {
    return choice == Choice::kExperts || capacity_factor > 0;
  }

  // Whether a loss depends on how many samples a microbatch has.
  bool learns_by_microbatch() const {
    return (balance_weight > 0 && balance_over == BalanceOver::kMicrobatch) ||
           (importance_weight > 0 &&
            importance_over == BalanceOver::kMicrobatch);
  }

  friend bool operator==(const MoeConfig&, const MoeConfig&) = default;
};

}  // namespace trireme

#endif  // TRIREME_MOE_MOE_CONFIG_H_
