// Which experts a token goes to, and with which weights.
//
//   logits = x·Wᵀ                 in fp32 (fp64 for fp64), whatever x's type
//   experts = the k largest logits, ties to the lowest expert
//   weights = softmax(logits)[experts], divided by their sum if `normalize`
//
// Losses are means over the tokens of the whole job's batch and do not depend
// on how it is divided:
//
//   balance  E · Σ over experts of f·P for each sample, with f the share of its
//            routes that go to an expert and P the mean of softmax(logits) over
//            its tokens (Fedus et al., "Switch transformers", section 2.2, by
//            sample): 1 when balanced
//   z        (log Σ exp logits)² (Zoph et al., "ST-MoE", section 3.3)

#ifndef TRIREME_MOE_ROUTER_H_
#define TRIREME_MOE_ROUTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "moe/moe_config.h"
#include "parallel/axis_state.h"
#include "parallel/context.h"
#include "parallel/parameter_store.h"

namespace trireme {

// The tokens that a layer is given.
struct MoeTokens {
  // Of each of a sample's tokens on this rank, whether it is padding, which is
  // neither routed nor counted. Empty: none is.
  std::vector<uint8_t> padding;
  // Of each sample over all ranks, and samples of the whole job's batch; 0
  // samples: no losses.
  int64_t of_sample = 0;
  int64_t global_batch = 0;
};

struct Routing {
  Variable weights;  // [t, k] of the compute type
  Tensor experts;    // int32 [t, k]; −1 for padding
};

class Router {
 public:
  Router(ParameterStore& store, const std::string& name, int64_t width,
         const MoeConfig& config);

  // Of x[b, s, width] with t = b·s; adds the losses.
  Routing Forward(ForwardContext& context, const ShardedVariable& x,
                  const MoeTokens& tokens) const;

 private:
  void AddLosses(ForwardContext& context, const ShardedVariable& logits,
                 const Tensor& experts, const MoeTokens& tokens) const;

  MoeConfig config_;
  Parameter* weight_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_ROUTER_H_
