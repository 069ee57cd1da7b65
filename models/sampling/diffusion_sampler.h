// Samplers of models that learnt on a discrete schedule of noise
// (models/objective/noise_schedule.h): DDIM (Song et al., "Denoising diffusion
// implicit models", equation 12).
//
//   x̂0, ε̂ from the prediction;  x' = √ᾱ'·x̂0 + √(1−ᾱ'−s²)·ε̂ + s·fresh noise,
//   s = η·√((1−ᾱ')/(1−ᾱ))·√(1−ᾱ/ᾱ')
//
// Of a model that learns variances, DDPM adds √σ²·fresh noise instead, with the
// σ² that the model says of each element (LogVarianceRange); s stays that of
// η = 1, and DDIM does not read them. Guidance is of all channels of the
// prediction, as in diffusers' pipeline (the first publication guided three of
// four), and variances are those with the condition.
//
// η = 0 is DDIM itself, which draws nothing anew; η = 1 is DDPM where it visits
// all steps of the schedule. Steps are those of diffusers' DDIMScheduler:
// multiples of ⌊T/n⌋, and ᾱ' = 1 behind 0.

#ifndef TRIREME_MODELS_SAMPLING_DIFFUSION_SAMPLER_H_
#define TRIREME_MODELS_SAMPLING_DIFFUSION_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "models/objective/noise_schedule.h"
#include "models/sampling/flow_sampler.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Standard normal, fp32, of the samples' shape: what step number `step` adds.
using FreshNoise = std::function<Tensor(int64_t step)>;

// The steps of the schedule that n steps of sampling visit, from the noisiest.
// n is at most T.
std::vector<int64_t> VisitedSteps(int64_t schedule_steps, int64_t n);

// From `noise` (fp32, not changed); reads solver, steps and guidance of
// `options`.
// `predict` is told t / kTimeUnit.
Tensor SampleDiffusion(const SamplerOptions& options,
                       const NoiseSchedule& schedule,
                       const PredictionFunction& predict,
                       const FreshNoise& fresh, const Tensor& noise);

// Whether a model of that schedule (null: of a flow) is sampled so. Errors name
// solver or steps, found, expected.
absl::Status CheckSampling(const SamplerOptions& options,
                           const NoiseSchedule* schedule);

}  // namespace trireme

#endif  // TRIREME_MODELS_SAMPLING_DIFFUSION_SAMPLER_H_
