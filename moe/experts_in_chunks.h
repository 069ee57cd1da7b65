// Experts' products while rows travel: what ToExperts, ExpertLinear,
// WeightedActivation and FromExperts make one after the other, of the same
// bits, chunk by chunk; and those of shadowed experts, whose rows stay, while
// the first chunk does.

#ifndef TRIREME_MOE_EXPERTS_IN_CHUNKS_H_
#define TRIREME_MOE_EXPERTS_IN_CHUNKS_H_

#include <memory>
#include <optional>
#include <vector>

#include "moe/moe_config.h"
#include "moe/row_chunks.h"
#include "moe/row_exchange.h"
#include "moe/shadowed_experts.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/parameter.h"
#include "runtime/autograd/tape.h"

namespace trireme {

class ExpertsInChunks {
 public:
  // Sends the weights of shadowed experts, and all chunks of x[t, h] and
  // weights[t, k], on their way. What the caller records before Finish is
  // computed meanwhile, and its backward while gradients travel back.
  // `in_bias`: of the first product, or null. A collective over the expert
  // group, as is Finish.
  ExpertsInChunks(Tape& tape, std::shared_ptr<const RowChunks> rows,
                  const Variable& x, const Variable& weights, Parameter& in,
                  Parameter* in_bias, Parameter& out);

  // [t, h]. Keeps what the ops that it stands for keep. Once.
  Variable Finish(Tape& tape, MoeConfig::ExpertKind kind, Keep keep);

 private:
  // Gradients that travel back to their tokens while backward goes on.
  struct Returning {
    std::vector<ExchangedRows> rows, weights;
  };

  const std::shared_ptr<const RowChunks> rows_;
  Parameter& in_;
  Parameter* in_bias_;
  Parameter& out_;
  const std::shared_ptr<Returning> returning_ = std::make_shared<Returning>();
  // Of shadowed experts, if there are any.
  std::optional<ShadowedWeights> shadowed_in_, shadowed_bias_, shadowed_out_;
  Variable sent_, sent_weights_;
  std::vector<ExchangedRows> arriving_, arriving_weights_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_EXPERTS_IN_CHUNKS_H_
