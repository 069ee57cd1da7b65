// What models of sequences learn: each token from those before it.
//
//   loss = Σ −log p(token | tokens before it) / tokens of the step
//
// A mean over the tokens of all sequences of a step, whichever rank has them,
// so that a long sequence counts for more than a short one and padding for
// nothing. Its exponential is the perplexity.

#ifndef TRIREME_MODELS_OBJECTIVE_NEXT_TOKEN_H_
#define TRIREME_MODELS_OBJECTIVE_NEXT_TOKEN_H_

#include <cstdint>
#include <string_view>

#include "models/objective/objective.h"

namespace trireme {

class NextTokenObjective final : public Objective {
 public:
  // `global_batch`: samples of a step over the whole job.
  explicit NextTokenObjective(int64_t global_batch)
      : global_batch_(global_batch) {}

  // The tokens in `field` and, as the target, what is learnt of them
  // (kNextTokensField), where the batch has it.
  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override;
  // Nothing is dropped.
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return global_batch_; }
  std::string_view counted_field() const override {
    return kSequenceLengthField;
  }
  // prediction: logits [b, local tokens, vocabulary]; target: int32 [b, local
  // tokens], negative where nothing is learnt.
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;

 private:
  int64_t global_batch_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_NEXT_TOKEN_H_
