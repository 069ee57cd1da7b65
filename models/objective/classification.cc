#include "models/objective/classification.h"

#include <algorithm>
#include <vector>

#include "parallel/layers/functional.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

// [2]: samples whose class is not, and is, the one of the highest logit; in
// fp64. Of equal logits the first counts.
Tensor HitsOf(const Tensor& logits, const Tensor& labels) {
  const std::vector<int32_t> found = Download<int32_t>(TopK(logits, 1));
  const std::vector<int32_t> expected = Download<int32_t>(labels);
  std::vector<double> counts = {0, 0};
  for (size_t i = 0; i < found.size(); ++i) {
    if (expected[i] >= 0) counts[found[i] == expected[i] ? 1 : 0] += 1;
  }
  return Upload<double>(logits.device(), {2}, counts);
}

}  // namespace

ModelInputs ClassificationObjective::Prepare(const Batch& microbatch,
                                             std::string_view field,
                                             DType dtype) const {
  ModelInputs inputs;
  if (microbatch.Has(field)) {
    const Tensor& pictures = microbatch[field];
    inputs.x = pictures.dtype() == dtype ? pictures : Cast(pictures, dtype);
  }
  if (microbatch.Has(kLabelField)) inputs.target = microbatch[kLabelField];
  return inputs;
}

Tensor ClassificationObjective::Condition(const Batch& microbatch,
                                          std::string_view field,
                                          int32_t /*none*/) const {
  return microbatch[field];
}

void ClassificationObjective::AddLosses(ForwardContext& context,
                                        const Batch& /*microbatch*/,
                                        const ShardedVariable& prediction,
                                        const Tensor& target,
                                        int64_t /*elements*/) const {
  AddLoss(context, CrossEntropyLoss(context, prediction, target, smoothing_),
          1.0 / static_cast<double>(std::max<int64_t>(global_batch_, 1)),
          kObjectiveLoss);
  ReportOnce(context, prediction.states, kHitCounts,
             HitsOf(prediction.value(), target));
}

}  // namespace trireme
