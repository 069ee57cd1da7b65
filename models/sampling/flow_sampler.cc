#include "models/sampling/flow_sampler.h"

#include "models/objective/rectified_flow.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Tensor GuidedVelocity(const SamplerOptions& options,
                      const VelocityFunction& velocity, const Tensor& x,
                      double sigma) {
  Tensor u = velocity(x, sigma, /*conditional=*/true);
  if (options.guidance == 1.0) return u;
  Tensor guided = velocity(x, sigma, /*conditional=*/false);
  ScaleInPlace(guided, 1.0 - options.guidance);
  AddInPlace(u, guided, options.guidance);
  return guided;
}

}  // namespace

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
                  const VelocityFunction& velocity, const Tensor& noise) {
  const std::vector<double> sigmas =
      SigmaSchedule(options.steps, options.shift);
  Tensor x = noise.Clone("sample");
  for (int64_t i = 0; i < options.steps; ++i) {
    const double step = sigmas[i + 1] - sigmas[i];
    const Tensor u = GuidedVelocity(options, velocity, x, sigmas[i]);
    if (options.solver == FlowSolver::kEuler || i + 1 == options.steps) {
      AddInPlace(u, x, step);
      continue;
    }
    Tensor ahead = x.Clone("sample");
    AddInPlace(u, ahead, step);
    const Tensor next = GuidedVelocity(options, velocity, ahead, sigmas[i + 1]);
    AddInPlace(u, x, step / 2);
    AddInPlace(next, x, step / 2);
  }
  return x;
}

}  // namespace trireme
