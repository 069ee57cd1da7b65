// Sizes of a mixture-of-experts layer, resolved.

#ifndef TRIREME_MOE_MOE_CONFIG_H_
#define TRIREME_MOE_MOE_CONFIG_H_

#include <cstdint>

namespace trireme {

struct MoeConfig {
  enum class ExpertKind { kSwiGlu, kGelu };

  int64_t experts = 0;
  // Experts of each token.
  int64_t top_k = 2;
  // Channels inside an expert.
  int64_t expert_hidden = 0;
  ExpertKind kind = ExpertKind::kSwiGlu;
  // Channels inside a SwiGLU that all tokens go through as well; 0: none.
  int64_t shared_hidden = 0;
  // A token's weights are made to sum to 1.
  bool normalize = false;
  // Of the load-balancing loss and of the router's z-loss; 0: none.
  double balance_weight = 0;
  double z_weight = 0;

  friend bool operator==(const MoeConfig&, const MoeConfig&) = default;
};

}  // namespace trireme

#endif  // TRIREME_MOE_MOE_CONFIG_H_
