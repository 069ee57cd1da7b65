#include "models/objective/sample_streams.h"

#include <vector>

#include "runtime/device/host.h"
#include "runtime/ops/copy.h"

namespace trireme {

RandomStream StreamOf(uint64_t seed, const Batch& batch, int64_t i,
                      RandomPurpose purpose) {
  return RandomStream({.seed = seed,
                       .step = static_cast<uint64_t>(batch.step),
                       .sample = batch.samples[i],
                       .purpose = purpose});
}

Tensor DropConditions(uint64_t seed, const Batch& batch, std::string_view field,
                      int32_t none, double probability) {
  std::vector<uint8_t> dropped;
  for (int64_t i = 0; i < batch.size(); ++i) {
    dropped.push_back(
        StreamOf(seed, batch, i, RandomPurpose::kConditionDrop).Uniform(0) <
        probability);
  }
  const Tensor& condition = batch[field];
  return MaskedFill(
      condition,
      Upload<uint8_t>(condition.device(), {batch.size()}, dropped,
                      MemoryCategory::kActivations, "dropped conditions"),
      none, "condition");
}

}  // namespace trireme
