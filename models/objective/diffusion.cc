#include "models/objective/diffusion.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "models/objective/sample_factors.h"
#include "models/objective/sample_streams.h"
#include "parallel/layers/functional.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

// a·first + b·second with a factor of each for every sample; fp32 [n, ..].
Tensor Combine(const Tensor& first, std::span<const float> a,
               const Tensor& second, std::span<const float> b,
               std::string_view label) {
  const auto scaled = [&](const Tensor& x, std::span<const float> factors) {
    const Tensor of_sample =
        Upload<float>(x.device(), {x.dim(0), 1}, factors,
                      MemoryCategory::kActivations, "factors of samples");
    return Multiply(
        x, RepeatOverTokens(of_sample, x.shape().elements_after(0), label)
               .Reshape(x.shape()));
  };
  const Tensor sum = scaled(first, a);
  AddInPlace(scaled(second, b), sum);
  return sum;
}

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

// What learned variances are compared with: [n, 2c + 1, h, w], of each pixel
// the target, the picture and 1, which padding has not.
Tensor WithPictures(const Tensor& target, const Tensor& pictures) {
  const int64_t c = target.dim(1);
  const Tensor all = Full(
      target.device(), {target.dim(0), 2 * c + 1, target.dim(2), target.dim(3)},
      target.dtype(), 1.0, MemoryCategory::kActivations, "diffusion target");
  WriteSlice(target, 1, 0, all);
  WriteSlice(pictures, 1, c, all);
  return all;
}

}  // namespace

absl::StatusOr<DiffusionConfig> ResolveDiffusion(Diffusion& diffusion,
                                                 bool learned_variance) {
  if (diffusion.prediction() == Diffusion::PREDICTION_UNSPECIFIED) {
    diffusion.set_prediction(Diffusion::NOISE);
  }
  if (diffusion.schedule() == Diffusion::SCHEDULE_UNSPECIFIED) {
    diffusion.set_schedule(Diffusion::LINEAR);
  }
  if (!diffusion.has_steps()) diffusion.set_steps(1000);
  RETURN_IF_ERROR(
      CheckRange("objective.diffusion.steps", diffusion.steps(), 1, 100000));
  const bool scaled = diffusion.schedule() == Diffusion::SCALED_LINEAR;
  if (diffusion.schedule() == Diffusion::COSINE) {
    if (diffusion.has_beta_start() || diffusion.has_beta_end()) {
      return InvalidArgument(
          "objective.diffusion.{}: found with schedule COSINE, expected it "
          "with LINEAR or SCALED_LINEAR",
          diffusion.has_beta_start() ? "beta_start" : "beta_end");
    }
  } else {
    if (!diffusion.has_beta_start()) {
      diffusion.set_beta_start(scaled ? 0.00085 : 0.0001);
    }
    if (!diffusion.has_beta_end()) {
      diffusion.set_beta_end(scaled ? 0.012 : 0.02);
    }
    RETURN_IF_ERROR(CheckRange("objective.diffusion.beta_start",
                               diffusion.beta_start(), 1e-8, 0.999));
    RETURN_IF_ERROR(CheckRange("objective.diffusion.beta_end",
                               diffusion.beta_end(), diffusion.beta_start(),
                               0.999));
  }
  RETURN_IF_ERROR(CheckRange("objective.diffusion.min_snr_gamma",
                             diffusion.min_snr_gamma(), 0, 1e6));
  if (!diffusion.has_condition_drop()) diffusion.set_condition_drop(0.1);
  RETURN_IF_ERROR(CheckRange("objective.diffusion.condition_drop",
                             diffusion.condition_drop(), 0, 1));
  if (learned_variance) {
    if (!diffusion.has_bound_weight()) diffusion.set_bound_weight(0.001);
    RETURN_IF_ERROR(CheckRange("objective.diffusion.bound_weight",
                               diffusion.bound_weight(), 0, 1e6));
    // The least variance of the last step is that of the one before it.
    RETURN_IF_ERROR(
        CheckRange("objective.diffusion.steps", diffusion.steps(), 2, 100000));
  } else if (diffusion.has_bound_weight()) {
    return InvalidArgument(
        "objective.diffusion.bound_weight: found {}, expected none for a model "
        "without learned_variance",
        diffusion.bound_weight());
  }
  DiffusionConfig config;
  config.schedule = {
      .alphas = CumulativeAlphas(diffusion.schedule(), diffusion.steps(),
                                 diffusion.beta_start(), diffusion.beta_end()),
      .prediction = diffusion.prediction() == Diffusion::V
                        ? DiffusionPrediction::kV
                        : DiffusionPrediction::kNoise,
      .learned_variance = learned_variance};
  config.bound_weight = diffusion.bound_weight();
  config.min_snr_gamma = diffusion.min_snr_gamma();
  config.condition_drop = diffusion.condition_drop();
  return config;
}

int64_t DiffusionObjective::StepOf(const Batch& batch, int64_t i) const {
  const double u = StreamOf(seed_, batch, i, RandomPurpose::kTime).Uniform(0);
  const int64_t steps = config_.schedule.steps();
  return std::min(static_cast<int64_t>(u * static_cast<double>(steps)),
                  steps - 1);
}

double DiffusionObjective::WeightOf(int64_t step) const {
  if (config_.min_snr_gamma == 0) return 1;
  const double alpha = config_.schedule.alphas[step];
  const double snr = alpha / (1 - alpha);
  const double least = std::min(snr, config_.min_snr_gamma);
  return config_.schedule.prediction == DiffusionPrediction::kV
             ? least / (snr + 1)
             : least / snr;
}

ModelInputs DiffusionObjective::Prepare(const Batch& batch,
                                        std::string_view field,
                                        DType dtype) const {
  const Tensor& clean = batch[field];
  Device& device = clean.device();
  const int64_t n = batch.size();
  std::vector<float> signal, noisy, minus_noisy;
  std::vector<RandomStream> streams;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t t = StepOf(batch, i);
    signal.push_back(static_cast<float>(config_.schedule.signal(t)));
    noisy.push_back(static_cast<float>(config_.schedule.noise(t)));
    minus_noisy.push_back(-noisy.back());
    streams.push_back(StreamOf(seed_, batch, i, RandomPurpose::kNoise));
  }
  const Tensor noise = Tensor::Empty(device, clean.shape(), DType::kFloat32,
                                     MemoryCategory::kActivations, "noise");
  {
    const Tensor all_noise =
        Upload<float>(device, {n}, std::vector<float>(n, 1.0F),
                      MemoryCategory::kActivations, "sigmas");
    AddFlowNoise(streams, clean, all_noise, noise,
                 Tensor::EmptyLike(noise, "noise less samples"));
  }
  const Tensor x = Combine(clean, signal, noise, noisy, "noised batch");
  const Tensor target =
      config_.schedule.prediction == DiffusionPrediction::kV
          ? Combine(noise, signal, clean, minus_noisy, "diffusion target")
          : noise;
  return {.x = In(x, dtype),
          .times = Times(batch, device, dtype),
          .target =
              In(config_.schedule.learned_variance ? WithPictures(target, clean)
                                                   : target,
                 dtype)};
}

Tensor DiffusionObjective::Times(const Batch& batch, Device& device,
                                 DType dtype) const {
  std::vector<float> times;
  for (int64_t i = 0; i < batch.size(); ++i) {
    times.push_back(
        static_cast<float>(static_cast<double>(StepOf(batch, i)) / kTimeUnit));
  }
  return In(Upload<float>(device, {batch.size()}, times,
                          MemoryCategory::kActivations, "times"),
            dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
}

std::vector<double> DiffusionObjective::SampleTimes(const Batch& batch) const {
  std::vector<double> times;
  for (int64_t i = 0; i < batch.size(); ++i) {
    times.push_back(static_cast<double>(StepOf(batch, i)) /
                    static_cast<double>(config_.schedule.steps()));
  }
  return times;
}

Tensor DiffusionObjective::Condition(const Batch& batch, std::string_view field,
                                     int32_t none) const {
  return DropConditions(seed_, batch, field, none, config_.condition_drop);
}

void DiffusionObjective::AddLosses(ForwardContext& context,
                                   const Batch& microbatch,
                                   const ShardedVariable& prediction,
                                   const Tensor& target,
                                   int64_t elements) const {
  const double mean = 1.0 / static_cast<double>(global_batch_ * elements);
  if (config_.schedule.learned_variance) {
    const auto add = [&](LearnedVarianceTerm term, double weight,
                         const char* name) {
      AddLoss(context,
              LearnedLoss(context, microbatch, prediction, target, term),
              weight * mean, name);
    };
    add(LearnedVarianceTerm::kSquaredError, 1, kObjectiveLoss);
    add(LearnedVarianceTerm::kBound,
        config_.bound_weight * static_cast<double>(config_.schedule.steps()),
        kVariationalBound);
    return;
  }
  ComparedSamples compared = {prediction, target};
  if (config_.min_snr_gamma > 0) {
    std::vector<double> factors;
    for (int64_t i = 0; i < microbatch.size(); ++i) {
      factors.push_back(std::sqrt(WeightOf(StepOf(microbatch, i))));
    }
    compared = ScaleSamples(context, prediction, target, factors);
  }
  AddLoss(context,
          SquaredErrorLoss(context, compared.prediction, compared.target), mean,
          kObjectiveLoss);
}

VarianceStep DiffusionObjective::VarianceStepOf(int64_t t) const {
  const NoiseSchedule& schedule = config_.schedule;
  const double alpha = schedule.alphas[t];
  const double next = t > 0 ? schedule.alphas[t - 1] : 1;
  // What x̂0 is multiplied by in the mean of x_{t−1}.
  const double of_clean = std::sqrt(next) * (1 - alpha / next) / (1 - alpha);
  VarianceStep step;
  step.weight = WeightOf(t);
  step.mean_per_error = -of_clean * schedule.noise(t);
  if (schedule.prediction == DiffusionPrediction::kNoise) {
    step.mean_per_error /= schedule.signal(t);
  }
  step.first = t == 0;
  // That of step 0 given the picture is 0, and taken to be that of step 1.
  step.least = t > 0 ? LogVariancesOf(alpha, next).least
                     : LogVariancesOf(schedule.alphas[1], alpha).least;
  step.most = LogVariancesOf(alpha, next).most;
  return step;
}

ShardedVariable DiffusionObjective::LearnedLoss(
    ForwardContext& context, const Batch& batch,
    const ShardedVariable& prediction, const Tensor& target,
    LearnedVarianceTerm term) const {
  LearnedVarianceComparison comparison = {.prediction = prediction.value(),
                                          .target = target};
  for (int64_t i = 0; i < batch.size(); ++i) {
    comparison.steps.push_back(VarianceStepOf(StepOf(batch, i)));
  }
  ShardedVariable sum = {.variable = {}, .states = prediction.states};
  for (const Axis axis : kAllAxes) {
    if (sum.states[axis].kind == AxisState::Kind::kShard) {
      sum.states[axis] = AxisState::Partial();
    }
  }
  sum.variable = context.tape.Record(
      "learned variance loss", {prediction.variable}, {},
      LearnedVarianceLoss(term, comparison), {prediction.value(), target},
      [term, steps = comparison.steps](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, LearnedVarianceLossBackward(term,
                                           {.prediction = gradients.Saved(0),
                                            .target = gradients.Saved(1),
                                            .steps = steps},
                                           gradients.LossGradient()));
      });
  return sum;
}

}  // namespace trireme
