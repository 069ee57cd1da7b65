#include "models/objective/next_token.h"

#include <algorithm>

#include "parallel/layers/functional.h"

namespace trireme {

ModelInputs NextTokenObjective::Prepare(const Batch& microbatch,
                                        std::string_view field,
                                        DType /*dtype*/) const {
  ModelInputs inputs;
  if (microbatch.Has(field)) inputs.x = microbatch[field];
  if (microbatch.Has(kNextTokensField)) {
    inputs.target = microbatch[kNextTokensField];
  }
  return inputs;
}

Tensor NextTokenObjective::Condition(const Batch& microbatch,
                                     std::string_view field,
                                     int32_t /*none*/) const {
  return microbatch[field];
}

void NextTokenObjective::AddLosses(ForwardContext& context,
                                   const Batch& microbatch,
                                   const ShardedVariable& prediction,
                                   const Tensor& target,
                                   int64_t /*elements*/) const {
  AddLoss(context, CrossEntropyLoss(context, prediction, target),
          1.0 / std::max(microbatch.counted, 1.0), kObjectiveLoss);
}

}  // namespace trireme
