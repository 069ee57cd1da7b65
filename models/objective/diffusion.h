// Denoising diffusion on a discrete schedule (noise_schedule.h).
//
//   t uniform in 0, .., T−1;  x = √ᾱ·x0 + √(1−ᾱ)·noise;  the network predicts
//   the noise, or v;
//   loss = Σ w·|prediction − target|² / (samples of the step · elements of a
//   sample).
//
// w = 1, or with min_snr_gamma γ min(γ, s)/s of noise and min(γ, s)/(s + 1) of
// v, where s = ᾱ/(1−ᾱ) (Hang et al., "Efficient diffusion training via min-SNR
// weighting strategy").
//
// Models that learn variances have a second loss, which trains these alone
// (Nichol and Dhariwal, "Improved denoising diffusion probabilistic models",
// L_hybrid): bound_weight·T·L_t as a mean likewise, L_t the term of step t in
// bits (runtime/ops/learned_variance.h).

#ifndef TRIREME_MODELS_OBJECTIVE_DIFFUSION_H_
#define TRIREME_MODELS_OBJECTIVE_DIFFUSION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "models/objective/noise_schedule.h"
#include "models/objective/objective.h"
#include "models/objective/objective.pb.h"
#include "runtime/ops/learned_variance.h"

namespace trireme {

struct DiffusionConfig {
  NoiseSchedule schedule;
  double min_snr_gamma = 0;  // 0: samples weigh alike
  double condition_drop = 0.1;
  double bound_weight = 0.001;
};

// The name of the loss of learned variances (AddLoss).
inline constexpr char kVariationalBound[] = "variational_bound";

// Fills the defaults in. Errors name the field, found, expected.
// `learned_variance`: the model's.
absl::StatusOr<DiffusionConfig> ResolveDiffusion(Diffusion& diffusion,
                                                 bool learned_variance = false);

class DiffusionObjective final : public Objective {
 public:
  // `global_batch`: samples of a step over the whole job.
  DiffusionObjective(DiffusionConfig config, uint64_t seed,
                     int64_t global_batch)
      : config_(std::move(config)), seed_(seed), global_batch_(global_batch) {}

  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override;
  Tensor Times(const Batch& microbatch, Device& device,
               DType dtype) const override;
  std::vector<double> SampleTimes(const Batch& microbatch) const override;
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return global_batch_; }
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;
  const NoiseSchedule* noise_schedule() const override {
    return &config_.schedule;
  }

 private:
  // The step of the batch's sample i.
  int64_t StepOf(const Batch& batch, int64_t i) const;
  double WeightOf(int64_t step) const;
  VarianceStep VarianceStepOf(int64_t step) const;
  ShardedVariable LearnedLoss(ForwardContext& context, const Batch& batch,
                              const ShardedVariable& prediction,
                              const Tensor& target,
                              LearnedVarianceTerm term) const;

  DiffusionConfig config_;
  uint64_t seed_;
  int64_t global_batch_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_DIFFUSION_H_
