// What models that name a picture's class learn.
//
//   loss = Σ −log p(class) / samples of the step
//
// with label smoothing (CrossEntropySum). Counts how many samples have their
// class as the one of the highest p (kHitCounts).

#ifndef TRIREME_MODELS_OBJECTIVE_CLASSIFICATION_H_
#define TRIREME_MODELS_OBJECTIVE_CLASSIFICATION_H_

#include <cstdint>
#include <string_view>

#include "models/objective/objective.h"

namespace trireme {

class ClassificationObjective final : public Objective {
 public:
  // `smoothing`: 0 to 1. `global_batch`: samples of a step over the whole job.
  ClassificationObjective(double smoothing, int64_t global_batch)
      : smoothing_(smoothing), global_batch_(global_batch) {}

  // The pictures in `field` and, as the target, their classes (int32 [n]), each
  // where the batch has it.
  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override;
  // Nothing is dropped.
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return global_batch_; }
  // prediction: logits [n, classes]; target: int32 [n], negative where nothing
  // is learnt.
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;

 private:
  double smoothing_;
  int64_t global_batch_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_CLASSIFICATION_H_
