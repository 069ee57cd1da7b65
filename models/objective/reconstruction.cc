#include "models/objective/reconstruction.h"

#include "runtime/core/log.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

ModelInputs ReconstructionObjective::Prepare(const Batch& microbatch,
                                             std::string_view field,
                                             DType dtype) const {
  const Tensor& samples = microbatch[field];
  return {.x = samples.dtype() == dtype ? samples : Cast(samples, dtype)};
}

Tensor ReconstructionObjective::Condition(const Batch& microbatch,
                                          std::string_view field,
                                          int32_t /*none*/) const {
  return microbatch[field];
}

void ReconstructionObjective::AddLosses(ForwardContext& /*context*/,
                                        const Batch& /*microbatch*/,
                                        const ShardedVariable& /*prediction*/,
                                        const Tensor& /*target*/,
                                        int64_t /*elements*/) const {
  CHECK(false) << "an autoencoder adds its losses itself";
}

}  // namespace trireme
