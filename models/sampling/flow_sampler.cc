#include "models/sampling/flow_sampler.h"

#include "models/objective/rectified_flow.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Tensor GuidedVelocity(const SamplerOptions& options,
                      const PredictionFunction& predict, const Tensor& x,
                      double sigma) {
  Tensor u = GuidedPrediction(options, predict, x, sigma);
  if (!options.predicts_clean) return u;
  ScaleInPlace(u, -1.0 / sigma);
  AddInPlace(x, u, 1.0 / sigma);
  return u;
}

}  // namespace

Tensor GuidedPrediction(const SamplerOptions& options,
                        const PredictionFunction& predict, const Tensor& x,
                        double sigma) {
  Tensor with = predict(x, sigma, /*conditional=*/true);
  if (options.guidance == 1.0) return with;
  Tensor guided = predict(x, sigma, /*conditional=*/false);
  ScaleInPlace(guided, 1.0 - options.guidance);
  AddInPlace(with, guided, options.guidance);
  return guided;
}

std::vector<double> SigmaSchedule(int64_t steps, double shift) {
  CHECK_GT(steps, 0);
  std::vector<double> sigmas;
  for (int64_t i = 0; i <= steps; ++i) {
    sigmas.push_back(ShiftSigma(
        1.0 - static_cast<double>(i) / static_cast<double>(steps), shift));
  }
  return sigmas;
}

Tensor SampleFlow(const SamplerOptions& options,
                  const PredictionFunction& predict, const Tensor& noise) {
  const std::vector<double> sigmas =
      SigmaSchedule(options.steps, options.shift);
  Tensor x = noise.Clone("sample");
  for (int64_t i = 0; i < options.steps; ++i) {
    const double step = sigmas[i + 1] - sigmas[i];
    const Tensor u = GuidedVelocity(options, predict, x, sigmas[i]);
    if (options.solver == Solver::kEuler || i + 1 == options.steps) {
      AddInPlace(u, x, step);
      continue;
    }
    Tensor ahead = x.Clone("sample");
    AddInPlace(u, ahead, step);
    const Tensor next = GuidedVelocity(options, predict, ahead, sigmas[i + 1]);
    AddInPlace(u, x, step / 2);
    AddInPlace(next, x, step / 2);
  }
  return x;
}

}  // namespace trireme
