// What autoencoders learn: to give back what they are given, without noise,
// times or conditions. They add their losses themselves, of which an objective
// knows nothing but the size of a step.

#ifndef TRIREME_MODELS_OBJECTIVE_RECONSTRUCTION_H_
#define TRIREME_MODELS_OBJECTIVE_RECONSTRUCTION_H_

#include <cstdint>

#include "models/objective/objective.h"

namespace trireme {

class ReconstructionObjective final : public Objective {
 public:
  // `global_batch`: samples of a step over the whole job.
  explicit ReconstructionObjective(int64_t global_batch)
      : global_batch_(global_batch) {}

  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override;
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return global_batch_; }
  // No model of this objective calls it (CHECKed).
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;

 private:
  int64_t global_batch_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_RECONSTRUCTION_H_
