// Discrete schedules of noise: of step t = 0, 1, ..,
//   x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·noise,  ᾱ_t = Π_{s≤t} (1−β_s)
// (Ho et al., "Denoising diffusion probabilistic models").

#ifndef TRIREME_MODELS_OBJECTIVE_NOISE_SCHEDULE_H_
#define TRIREME_MODELS_OBJECTIVE_NOISE_SCHEDULE_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "models/objective/objective.pb.h"

namespace trireme {

// What a network of such a schedule predicts.
enum class DiffusionPrediction {
  kNoise,
  // √ᾱ·noise − √(1−ᾱ)·x0 (Salimans and Ho, "Progressive distillation").
  kV,
};

// What networks are told of step t is t / kTimeUnit, of which they read t.
inline constexpr double kTimeUnit = 1000;

struct NoiseSchedule {
  std::vector<double> alphas;  // ᾱ_t
  DiffusionPrediction prediction = DiffusionPrediction::kNoise;
  // Whether samples of c channels have 2c predictions, the latter of which are
  // v of LogVarianceRange.
  bool learned_variance = false;

  int64_t steps() const { return static_cast<int64_t>(alphas.size()); }
  double signal(int64_t t) const { return std::sqrt(alphas[t]); }
  double noise(int64_t t) const { return std::sqrt(1 - alphas[t]); }
};

// Of the normal distribution of x_{t'} given x_t, from ᾱ_t and ᾱ_t': the
// logarithms of the least variance that it may have, which is that given x0 as
// well, β̃ = β·(1−ᾱ')/(1−ᾱ), and of the most, β = 1 − ᾱ/ᾱ'. A model that learns
// variances says v of log σ² = least + (most − least)·(v + 1)/2 (Nichol and
// Dhariwal, equation 15).
struct LogVarianceRange {
  double least = 0;
  double most = 0;
};
LogVarianceRange LogVariancesOf(double alpha, double next_alpha);

// β rises linearly from `beta_start` to `beta_end` (LINEAR), or √β does
// (SCALED_LINEAR), or ᾱ falls as a squared cosine (COSINE; Nichol and Dhariwal,
// "Improved denoising diffusion probabilistic models"), which reads no β.
std::vector<double> CumulativeAlphas(Diffusion::Schedule schedule,
                                     int64_t steps, double beta_start,
                                     double beta_end);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_NOISE_SCHEDULE_H_
