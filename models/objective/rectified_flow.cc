#include "models/objective/rectified_flow.h"

#include <cmath>
#include <vector>

#include "parallel/functional.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

RandomStream StreamOf(uint64_t seed, const Batch& batch, int64_t i,
                      RandomPurpose purpose) {
  return RandomStream({.seed = seed,
                       .step = static_cast<uint64_t>(batch.step),
                       .sample = batch.samples[i],
                       .purpose = purpose});
}

// 1 where a sample's conditions are dropped; uint8 [n].
Tensor DroppedSamples(const RectifiedFlowConfig& config, uint64_t seed,
                      const Batch& batch, Device& device) {
  std::vector<uint8_t> dropped;
  for (int64_t i = 0; i < batch.size(); ++i) {
    dropped.push_back(
        StreamOf(seed, batch, i, RandomPurpose::kConditionDrop).Uniform(0) <
        config.condition_drop);
  }
  return Upload<uint8_t>(device, {batch.size()}, dropped,
                         MemoryCategory::kActivations, "dropped conditions");
}

double SampleSigma(const RectifiedFlowConfig& config, uint64_t seed,
                   const Batch& batch, int64_t i) {
  const double normal =
      StreamOf(seed, batch, i, RandomPurpose::kTime).Normal(0);
  const double logit = config.logit_mean + config.logit_stddev * normal;
  return ShiftSigma(1.0 / (1.0 + std::exp(-logit)), config.shift);
}

}  // namespace

absl::StatusOr<RectifiedFlowConfig> ResolveRectifiedFlow(
    const RectifiedFlow& flow) {
  RectifiedFlowConfig config;
  if (flow.has_logit_mean()) config.logit_mean = flow.logit_mean();
  if (flow.has_logit_stddev()) config.logit_stddev = flow.logit_stddev();
  if (flow.has_shift()) config.shift = flow.shift();
  if (flow.has_condition_drop()) config.condition_drop = flow.condition_drop();
  if (!(config.logit_stddev > 0 && config.logit_stddev <= 100)) {
    return InvalidArgument(
        "objective.rectified_flow.logit_stddev: found {}, expected more than 0 "
        "and at most 100",
        config.logit_stddev);
  }
  if (!(std::abs(config.logit_mean) <= 100)) {
    return InvalidArgument(
        "objective.rectified_flow.logit_mean: found {}, expected -100 to 100",
        config.logit_mean);
  }
  if (!(config.shift > 0 && config.shift <= 1000)) {
    return InvalidArgument(
        "objective.rectified_flow.shift: found {}, expected more than 0 and at "
        "most 1000",
        config.shift);
  }
  if (!(config.condition_drop >= 0 && config.condition_drop <= 1)) {
    return InvalidArgument(
        "objective.rectified_flow.condition_drop: found {}, expected 0 to 1",
        config.condition_drop);
  }
  return config;
}

void FillRectifiedFlow(const RectifiedFlowConfig& config, RectifiedFlow& flow) {
  flow.set_logit_mean(config.logit_mean);
  flow.set_logit_stddev(config.logit_stddev);
  flow.set_shift(config.shift);
  flow.set_condition_drop(config.condition_drop);
}

double ShiftSigma(double sigma, double shift) {
  return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

ModelInputs RectifiedFlowObjective::Prepare(const Batch& batch,
                                            std::string_view field,
                                            DType dtype) const {
  const Tensor& clean = batch[field];
  Device& device = clean.device();
  const int64_t n = batch.size();
  const Tensor x = Tensor::Empty(device, clean.shape(), DType::kFloat32,
                                 MemoryCategory::kActivations, "noised batch");
  const Tensor target = Tensor::EmptyLike(x, "flow target");
  std::vector<float> sigma_values;
  std::vector<RandomStream> noise;
  for (int64_t i = 0; i < n; ++i) {
    sigma_values.push_back(
        static_cast<float>(SampleSigma(config_, seed_, batch, i)));
    noise.push_back(StreamOf(seed_, batch, i, RandomPurpose::kNoise));
  }
  const Tensor sigmas = Upload<float>(device, {n}, sigma_values,
                                      MemoryCategory::kActivations, "sigmas");
  AddFlowNoise(noise, clean, sigmas, x, target);
  const auto in = [](const Tensor& tensor, DType wanted) {
    return tensor.dtype() == wanted ? tensor : Cast(tensor, wanted);
  };
  return {.x = in(x, dtype),
          .times = in(sigmas, dtype == DType::kFloat64 ? DType::kFloat64
                                                       : DType::kFloat32),
          .target = in(target, dtype)};
}

Tensor RectifiedFlowObjective::Condition(const Batch& batch,
                                         std::string_view field,
                                         int32_t none) const {
  const Tensor& condition = batch[field];
  return MaskedFill(condition,
                    DroppedSamples(config_, seed_, batch, condition.device()),
                    none, "condition");
}

void RectifiedFlowObjective::AddLosses(ForwardContext& context,
                                       const ShardedVariable& prediction,
                                       const Tensor& target,
                                       int64_t elements) const {
  AddLoss(context, SquaredErrorLoss(context, prediction, target),
          1.0 / static_cast<double>(global_batch_ * elements), kObjectiveLoss);
}

}  // namespace trireme
