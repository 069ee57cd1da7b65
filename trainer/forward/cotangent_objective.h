// The objective Σ output·cotangent, whose gradients are those that a given
// gradient of the output leads to.

#ifndef TRIREME_TRAINER_FORWARD_COTANGENT_OBJECTIVE_H_
#define TRIREME_TRAINER_FORWARD_COTANGENT_OBJECTIVE_H_

#include <cstdint>
#include <string_view>
#include <utility>

#include "models/objective/objective.h"

namespace trireme {

class CotangentObjective final : public Objective {
 public:
  // The gradients of the inputs go to `inputs`, which outlives its use. Batches
  // have kTimeField and kCotangentField, which is as the `output`; dry ones
  // need not.
  CotangentObjective(InputGradients& inputs, FieldSpec output)
      : inputs_(inputs), output_(std::move(output)) {}

  ModelInputs Prepare(const Batch& batch, std::string_view field,
                      DType dtype) const override;
  Tensor Times(const Batch& batch, Device& device, DType dtype) const override;
  Tensor Condition(const Batch& batch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return 0; }
  InputGradients* input_gradients() const override { return &inputs_; }
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;

 private:
  InputGradients& inputs_;
  FieldSpec output_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_FORWARD_COTANGENT_OBJECTIVE_H_
