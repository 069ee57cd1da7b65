#include "models/sampling/diffusion_sampler.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/gaussian.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// a·x + b·y.
Tensor Mix(const Tensor& x, double a, const Tensor& y, double b) {
  const Tensor mixed = x.Clone("sample");
  ScaleInPlace(mixed, a);
  AddInPlace(y, mixed, b);
  return mixed;
}

// mean + σ·noise, where a model says v of log σ² (LogVarianceRange).
Tensor AddLearnedNoise(const Tensor& mean, const Tensor& v,
                       const LogVarianceRange& range, const Tensor& noise) {
  const Tensor log_variance = Full(v.device(), v.shape(), DType::kFloat32,
                                   (range.least + range.most) / 2);
  AddInPlace(v, log_variance, (range.most - range.least) / 2);
  const int64_t n = mean.dim(0), elements = mean.shape().elements_after(0);
  const Tensor moments =
      Tensor::Empty(mean.device(), {n, 2 * elements}, DType::kFloat32,
                    MemoryCategory::kActivations, "moments of a step");
  WriteSlice(mean.Reshape({n, elements}), 1, 0, moments);
  WriteSlice(log_variance.Reshape({n, elements}), 1, elements, moments);
  return SampleGaussian(moments, noise.Reshape({n, elements}))
      .Reshape(mean.shape());
}

}  // namespace

std::vector<int64_t> VisitedSteps(int64_t schedule_steps, int64_t n) {
  CHECK(n >= 1 && n <= schedule_steps) << n << " of " << schedule_steps;
  std::vector<int64_t> steps;
  for (int64_t i = n - 1; i >= 0; --i) {
    steps.push_back(i * (schedule_steps / n));
  }
  return steps;
}

Tensor SampleDiffusion(const SamplerOptions& options,
                       const NoiseSchedule& schedule,
                       const PredictionFunction& predict,
                       const FreshNoise& fresh, const Tensor& noise) {
  const double eta = options.solver == Solver::kDdpm ? 1 : 0;
  const int64_t stride = schedule.steps() / options.steps;
  Tensor x = noise.Clone("sample");
  Tensor variances;
  // Without the channels of variances, which are kept.
  const PredictionFunction predict_mean = [&](const Tensor& at, double time,
                                              bool conditional) {
    Tensor predicted = predict(at, time, conditional);
    if (!schedule.learned_variance) return predicted;
    const int64_t channels = at.dim(1);
    if (conditional) {
      variances = CopySlice(predicted, 1, channels, 2 * channels, "variances");
    }
    return CopySlice(predicted, 1, 0, channels, "prediction");
  };
  int64_t step = 0;
  for (const int64_t t : VisitedSteps(schedule.steps(), options.steps)) {
    const Tensor predicted = GuidedPrediction(
        options, predict_mean, x, static_cast<double>(t) / kTimeUnit);
    const double a = schedule.signal(t), b = schedule.noise(t);
    const bool of_v = schedule.prediction == DiffusionPrediction::kV;
    const Tensor clean =
        of_v ? Mix(x, a, predicted, -b) : Mix(x, 1 / a, predicted, -b / a);
    const Tensor noisy = of_v ? Mix(x, b, predicted, a) : predicted;
    const double alpha = schedule.alphas[t];
    const double next = t >= stride ? schedule.alphas[t - stride] : 1;
    const double spread = eta * std::sqrt((1 - next) / (1 - alpha)) *
                          std::sqrt(std::max(0.0, 1 - alpha / next));
    x = Mix(clean, std::sqrt(next), noisy,
            std::sqrt(std::max(0.0, 1 - next - spread * spread)));
    if (spread > 0 && schedule.learned_variance) {
      x = AddLearnedNoise(x, variances, LogVariancesOf(alpha, next),
                          fresh(step));
    } else if (spread > 0) {
      AddInPlace(fresh(step), x, spread);
    }
    ++step;
  }
  return x;
}

absl::Status CheckSampling(const SamplerOptions& options,
                           const NoiseSchedule* schedule) {
  const bool of_diffusion =
      options.solver == Solver::kDdim || options.solver == Solver::kDdpm;
  if (of_diffusion != (schedule != nullptr)) {
    return InvalidArgument(
        "solver: found one of {}, expected {} with objective.{}",
        of_diffusion ? "diffusion" : "flows",
        of_diffusion ? "EULER or HEUN" : "DDIM or DDPM",
        of_diffusion ? "rectified_flow" : "diffusion");
  }
  if (schedule != nullptr && options.steps > schedule->steps()) {
    return InvalidArgument(
        "steps: found {}, expected at most the {} of the schedule",
        options.steps, schedule->steps());
  }
  return absl::OkStatus();
}

}  // namespace trireme
