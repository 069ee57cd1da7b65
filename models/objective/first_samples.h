// An objective of some samples that are learnt in batches of another number:
// those behind them are padding.

#ifndef TRIREME_MODELS_OBJECTIVE_FIRST_SAMPLES_H_
#define TRIREME_MODELS_OBJECTIVE_FIRST_SAMPLES_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/objective/objective.h"

namespace trireme {

// As `objective`, but that samples at positions (Batch::samples) from `count`
// on add nothing to its own loss, and that routes to experts are counted by the
// samples' times: of those without times all as of time 0.
class FirstSamples final : public Objective {
 public:
  // `objective` outlives it.
  FirstSamples(const Objective& objective, int64_t count)
      : objective_(objective), count_(count) {}

  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override {
    return objective_.Prepare(microbatch, field, dtype);
  }
  Tensor Times(const Batch& microbatch, Device& device,
               DType dtype) const override {
    return objective_.Times(microbatch, device, dtype);
  }
  std::vector<double> SampleTimes(const Batch& microbatch) const override {
    return objective_.SampleTimes(microbatch);
  }
  std::vector<int32_t> RouteKinds(const Batch& microbatch) const override;
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override {
    return objective_.Condition(microbatch, field, none);
  }
  int64_t global_batch() const override { return objective_.global_batch(); }
  std::string_view counted_field() const override {
    return objective_.counted_field();
  }
  double Counted(const Batch& batch) const override;
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;
  bool predicts_clean() const override { return objective_.predicts_clean(); }

 private:
  const Objective& objective_;
  int64_t count_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_FIRST_SAMPLES_H_
