#include "models/sampling/diffusion_sampler.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
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
  int64_t step = 0;
  for (const int64_t t : VisitedSteps(schedule.steps(), options.steps)) {
    const Tensor predicted = GuidedPrediction(
        options, predict, x, static_cast<double>(t) / kTimeUnit);
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
    if (spread > 0) AddInPlace(fresh(step), x, spread);
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
