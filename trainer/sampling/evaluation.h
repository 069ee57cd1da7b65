// Evaluates a model instead of training it: it is given samples as they are, at
// given times.

#ifndef TRIREME_TRAINER_SAMPLING_EVALUATION_H_
#define TRIREME_TRAINER_SAMPLING_EVALUATION_H_

#include <cstdint>
#include <string_view>

#include "models/objective/objective.h"

namespace trireme {

// Each sample's time, of any floating type; none of a model without times.
inline constexpr char kTimeField[] = "time";

class Evaluation final : public Objective {
 public:
  // `prediction` becomes what the head predicts, whole in its tokens, which may
  // have padding behind them.
  // `cache`: of sequences that are drawn token by token.
  explicit Evaluation(Tensor& prediction, KeyValueCache* cache = nullptr)
      : prediction_(prediction), cache_(cache) {}

  ModelInputs Prepare(const Batch& batch, std::string_view field,
                      DType dtype) const override;
  Tensor Times(const Batch& batch, Device& /*device*/,
               DType /*dtype*/) const override {
    return batch[kTimeField];
  }
  Tensor Condition(const Batch& batch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return 0; }
  KeyValueCache* key_value_cache() const override { return cache_; }
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;

 private:
  Tensor& prediction_;
  KeyValueCache* cache_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_EVALUATION_H_
