// Samplers of a rectified flow's ODE dx/dσ = u(x, σ), from noise at σ = 1 to a
// picture at σ = 0.
//
//   Euler: x += (σ' − σ)·u(x, σ)
//   Heun:  the mean of the slopes at both ends; the last step is Euler
//          (σ' = 0 is outside what the network was trained on).
//   Guidance: u = u_∅ + w·(u_c − u_∅) (Ho and Salimans, "Classifier-free
//   diffusion guidance").

#ifndef TRIREME_MODELS_SAMPLING_FLOW_SAMPLER_H_
#define TRIREME_MODELS_SAMPLING_FLOW_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "models/sampling/token_choice.h"
#include "runtime/device/tensor.h"

namespace trireme {

enum class Solver {
  kEuler,
  kHeun,
  // Of diffusion (diffusion_sampler.h).
  kDdim,
  kDdpm
};

// Diffusion has neither shift nor clean predictions.
struct SamplerOptions {
  Solver solver = Solver::kEuler;
  int64_t steps = 25;
  double shift = 1.0;
  // 1 = none: the conditional velocity alone.
  double guidance = 1.0;
  // What the network gives is x̂0, from which u = (x − x̂0)/σ.
  bool predicts_clean = false;
  // Of sequences of tokens, which know nothing of the rest.
  TokenChoice tokens;
};

// What the network gives for x and σ, u or x̂0: x fp32 [n, ..], one σ for all;
// returns fp32 of x's shape. `conditional` false: without the condition.
using PredictionFunction =
    std::function<Tensor(const Tensor& x, double sigma, bool conditional)>;

// u_∅ + w·(u_c − u_∅), whatever the network gives.
Tensor GuidedPrediction(const SamplerOptions& options,
                        const PredictionFunction& predict, const Tensor& x,
                        double sigma);

// σ of each step's start, and 0 at the end: steps + 1 values.
std::vector<double> SigmaSchedule(int64_t steps, double shift);

// Integrates from `noise` (fp32, not changed) and returns the result.
Tensor SampleFlow(const SamplerOptions& options,
                  const PredictionFunction& predict, const Tensor& noise);

}  // namespace trireme

#endif  // TRIREME_MODELS_SAMPLING_FLOW_SAMPLER_H_
