#include "models/objective/rectified_flow.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "fmt/format.h"
#include "models/objective/assignment.h"
#include "models/objective/sample_factors.h"
#include "models/objective/sample_streams.h"
#include "parallel/layers/functional.h"
#include "runtime/core/check_range.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

// Below, a prediction of x0 is as good as it is near by.
constexpr double kLeastSigma = 0.05;

double SampleSigma(const RectifiedFlowConfig& config, uint64_t seed,
                   const Batch& batch, int64_t i) {
  return ShiftSigma(
      DrawSigma(config, StreamOf(seed, batch, i, RandomPurpose::kTime)),
      config.bucket_shifts.empty() ? config.shift
                                   : config.bucket_shifts[batch.bucket]);
}

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

// The largest scale with which MODE's sigma falls as u grows.
constexpr double kMostModeScale = 2 / (std::numbers::pi - 2);

// Fills the defaults in.
RectifiedFlow::DynamicShift Resolved(RectifiedFlow::DynamicShift dynamic) {
  if (!dynamic.has_base_tokens()) dynamic.set_base_tokens(256);
  if (!dynamic.has_max_tokens()) dynamic.set_max_tokens(4096);
  if (!dynamic.has_base_shift()) dynamic.set_base_shift(0.5);
  if (!dynamic.has_max_shift()) dynamic.set_max_shift(1.15);
  return dynamic;
}

// The shift of a model of so many tokens.
absl::StatusOr<double> DynamicShiftOf(const RectifiedFlow& flow,
                                      int64_t tokens) {
  const RectifiedFlow::DynamicShift dynamic = Resolved(flow.dynamic_shift());
  if (dynamic.base_tokens() >= dynamic.max_tokens()) {
    return InvalidArgument(
        "objective.rectified_flow.dynamic_shift.max_tokens: found {}, expected "
        "more than base_tokens, {}",
        dynamic.max_tokens(), dynamic.base_tokens());
  }
  const double slope =
      (dynamic.max_shift() - dynamic.base_shift()) /
      (double{1} * dynamic.max_tokens() - dynamic.base_tokens());
  const double mu =
      dynamic.base_shift() +
      slope * (static_cast<double>(tokens) - dynamic.base_tokens());
  const double shift = std::exp(mu);
  // What a run's job has was written with the same tokens.
  if (flow.has_shift() && std::abs(flow.shift() - shift) > 1e-9 * shift) {
    return InvalidArgument(
        "objective.rectified_flow.shift: found {} with dynamic_shift, expected "
        "none, or {} of {} tokens",
        flow.shift(), shift, tokens);
  }
  return shift;
}

// The samples, sets [n, tokens, width], with token i of each where the distance
// of its first `channels` channels to token i of the sample's noise adds up to
// the least sum over the set.
Tensor MatchToNoise(const Tensor& clean, std::span<const RandomStream> noise,
                    int64_t channels) {
  const int64_t tokens = clean.dim(1), width = clean.dim(2);
  const std::vector<float> values = Download<float>(clean);
  if (values.empty()) return Tensor::EmptyLike(clean, "matched tokens");
  std::vector<float> matched(values.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t sample = 0; sample < noise.size(); ++sample) {
    const float* const set = values.data() + sample * tokens * width;
    std::vector<double> costs(tokens * tokens, 0.0);
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t c = 0; c < channels; ++c) {
        const double at = noise[sample].Normal(i * width + c);
        for (int64_t j = 0; j < tokens; ++j) {
          const double to = set[j * width + c] - at;
          costs[i * tokens + j] += to * to;
        }
      }
    }
    float* to = matched.data() + sample * tokens * width;
    for (const int32_t token : LeastCostAssignment(costs, tokens)) {
      to = std::copy_n(set + token * width, width, to);
    }
  }
  return Upload<float>(clean.device(), clean.shape(), matched,
                       MemoryCategory::kActivations, "matched tokens");
}

// x [n, tokens, channels] with zeros behind each sample's `counts` (int32 [n]).
void ZeroPadding(const Tensor& x, const Tensor& counts) {
  const std::vector<int32_t> tokens = Download<int32_t>(counts);
  for (int64_t i = 0; i < static_cast<int64_t>(tokens.size()); ++i) {
    if (tokens[i] < x.dim(1)) {
      ZeroSlice(x.Slice(i, i + 1), 1, tokens[i], x.dim(1));
    }
  }
}

}  // namespace

double DrawSigma(const RectifiedFlowConfig& config,
                 const RandomStream& stream) {
  constexpr double kHalfPi = std::numbers::pi / 2;
  switch (config.times) {
    case RectifiedFlow::UNIFORM:
      return stream.Uniform(0);
    case RectifiedFlow::MODE: {
      const double u = stream.Uniform(0);
      const double cosine = std::cos(kHalfPi * u);
      return 1 - u - config.mode_scale * (cosine * cosine - 1 + u);
    }
    case RectifiedFlow::COSMAP:
      return 1 - 1 / (std::tan(kHalfPi * stream.Uniform(0)) + 1);
    default: {
      const double logit =
          config.logit_mean + config.logit_stddev * stream.Normal(0);
      return 1.0 / (1.0 + std::exp(-logit));
    }
  }
}

absl::StatusOr<RectifiedFlowConfig> ResolveRectifiedFlow(
    const RectifiedFlow& flow, const FieldSpec& samples, int64_t tokens) {
  RectifiedFlowConfig config;
  config.predicts_clean = flow.prediction() == RectifiedFlow::CLEAN;
  config.compares_clean = flow.loss() == RectifiedFlow::OF_CLEAN;
  config.match_channels = flow.match_channels();
  const bool of_sets = samples.name == kTokenSetField;
  if (config.match_channels > (of_sets ? samples.shape.dim(1) : 0)) {
    return InvalidArgument(
        "objective.rectified_flow.match_channels: found {}, expected {}",
        config.match_channels,
        of_sets ? fmt::format("at most the {} channels of a token",
                              samples.shape.dim(1))
                : "none where samples are not sets of tokens");
  }
  if (!samples.counted_by.empty()) {
    config.counted_field = samples.counted_by;
    config.counted_channels = samples.shape.dim(1);
    if (config.match_channels > 0) {
      return InvalidArgument(
          "objective.rectified_flow.match_channels: found {}, expected none "
          "where tokens have places of their own",
          config.match_channels);
    }
  }
  if (flow.times() != RectifiedFlow::TIMES_UNSPECIFIED) {
    config.times = flow.times();
  }
  if (flow.has_mode_scale()) config.mode_scale = flow.mode_scale();
  if (flow.has_logit_mean()) config.logit_mean = flow.logit_mean();
  if (flow.has_logit_stddev()) config.logit_stddev = flow.logit_stddev();
  if (flow.has_shift()) config.shift = flow.shift();
  if (flow.has_dynamic_shift()) {
    ASSIGN_OR_RETURN(config.shift, DynamicShiftOf(flow, tokens));
  }
  if (!(config.mode_scale >= -1 && config.mode_scale <= kMostModeScale)) {
    return InvalidArgument(
        "objective.rectified_flow.mode_scale: found {}, expected -1 to {:.4f}",
        config.mode_scale, kMostModeScale);
  }
  if (flow.has_condition_drop()) config.condition_drop = flow.condition_drop();
  if (!(config.logit_stddev > 0 && config.logit_stddev <= 100)) {
    return InvalidArgument(
        "objective.rectified_flow.logit_stddev: found {}, expected more than 0 "
        "and at most 100",
        config.logit_stddev);
  }
  RETURN_IF_ERROR(CheckRange("objective.rectified_flow.logit_mean",
                             config.logit_mean, -100, 100));
  if (!(config.shift > 0 && config.shift <= 1000)) {
    return InvalidArgument(
        "objective.rectified_flow.shift: found {}, expected more than 0 and at "
        "most 1000",
        config.shift);
  }
  RETURN_IF_ERROR(CheckRange("objective.rectified_flow.condition_drop",
                             config.condition_drop, 0, 1));
  return config;
}

void FillRectifiedFlow(const RectifiedFlowConfig& config, RectifiedFlow& flow) {
  if (config.times == RectifiedFlow::LOGIT_NORMAL) {
    flow.set_logit_mean(config.logit_mean);
    flow.set_logit_stddev(config.logit_stddev);
  } else {
    flow.set_times(config.times);
  }
  if (config.times == RectifiedFlow::MODE) {
    flow.set_mode_scale(config.mode_scale);
  }
  if (flow.has_dynamic_shift()) {
    *flow.mutable_dynamic_shift() = Resolved(flow.dynamic_shift());
  }
  flow.set_shift(config.shift);
  flow.set_condition_drop(config.condition_drop);
  flow.set_prediction(config.predicts_clean ? RectifiedFlow::CLEAN
                                            : RectifiedFlow::VELOCITY);
  flow.set_loss(config.compares_clean ? RectifiedFlow::OF_CLEAN
                                      : RectifiedFlow::OF_VELOCITY);
  if (config.match_channels > 0) {
    flow.set_match_channels(static_cast<uint32_t>(config.match_channels));
  }
}

double ShiftSigma(double sigma, double shift) {
  return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

ModelInputs RectifiedFlowObjective::Prepare(const Batch& batch,
                                            std::string_view field,
                                            DType dtype) const {
  Tensor clean = batch[field];
  Device& device = clean.device();
  const int64_t n = batch.size();
  std::vector<RandomStream> noise;
  for (int64_t i = 0; i < n; ++i) {
    noise.push_back(StreamOf(seed_, batch, i, RandomPurpose::kNoise));
  }
  if (config_.match_channels > 0) {
    clean = MatchToNoise(clean, noise, config_.match_channels);
  }
  const Tensor x = Tensor::Empty(device, clean.shape(), DType::kFloat32,
                                 MemoryCategory::kActivations, "noised batch");
  const Tensor target = Tensor::EmptyLike(x, "flow target");
  const Tensor sigmas = Sigmas(batch, device);
  AddFlowNoise(noise, clean, sigmas, x, target);
  if (!config_.counted_field.empty()) {
    // What padding is given is nobody's concern, but what it is compared with
    // is: a model predicts zeros there.
    if (config_.predicts_clean) clean = clean.Clone("clean batch");
    for (const Tensor& padded : {x, config_.predicts_clean ? clean : target}) {
      ZeroPadding(padded, batch[config_.counted_field]);
    }
  }
  return {.x = In(x, dtype),
          .times = In(sigmas, dtype == DType::kFloat64 ? DType::kFloat64
                                                       : DType::kFloat32),
          .target = In(config_.predicts_clean ? clean : target, dtype)};
}

Tensor RectifiedFlowObjective::Times(const Batch& batch, Device& device,
                                     DType dtype) const {
  return In(Sigmas(batch, device),
            dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
}

std::vector<double> RectifiedFlowObjective::SampleTimes(
    const Batch& batch) const {
  std::vector<double> times;
  for (int64_t i = 0; i < batch.size(); ++i) {
    times.push_back(SampleSigma(config_, seed_, batch, i));
  }
  return times;
}

Tensor RectifiedFlowObjective::Sigmas(const Batch& batch,
                                      Device& device) const {
  const std::vector<double> times = SampleTimes(batch);
  const std::vector<float> sigmas(times.begin(), times.end());
  return Upload<float>(device, {batch.size()}, sigmas,
                       MemoryCategory::kActivations, "sigmas");
}

// x0_θ − x0 = sigma·(u − u_θ).
double RectifiedFlowObjective::ErrorFactor(const Batch& batch,
                                           int64_t i) const {
  const double sigma = SampleSigma(config_, seed_, batch, i);
  return config_.compares_clean ? sigma : 1 / std::max(sigma, kLeastSigma);
}

Tensor RectifiedFlowObjective::Condition(const Batch& batch,
                                         std::string_view field,
                                         int32_t none) const {
  return DropConditions(seed_, batch, field, none, config_.condition_drop);
}

void RectifiedFlowObjective::AddLosses(ForwardContext& context,
                                       const Batch& microbatch,
                                       const ShardedVariable& prediction,
                                       const Tensor& target,
                                       int64_t elements) const {
  ComparedSamples compared = {prediction, target};
  if (config_.predicts_clean != config_.compares_clean) {
    std::vector<double> factors;
    for (int64_t i = 0; i < microbatch.size(); ++i) {
      factors.push_back(ErrorFactor(microbatch, i));
    }
    compared = ScaleSamples(context, prediction, target, factors);
  }
  const double compared_elements =
      config_.counted_field.empty()
          ? static_cast<double>(global_batch_ * elements)
          : std::max(microbatch.counted, 1.0) *
                static_cast<double>(config_.counted_channels);
  AddLoss(context,
          SquaredErrorLoss(context, compared.prediction, compared.target),
          1.0 / compared_elements, kObjectiveLoss);
}

}  // namespace trireme
