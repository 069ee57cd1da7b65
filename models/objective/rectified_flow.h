// Rectified flow (Liu et al., "Flow straight and fast"; sampling of sigma by
// Esser et al., "Scaling rectified flow transformers", section 3.1).
//
//   sigma by one of several densities, then shifted;
//   x = (1−sigma)·x0 + sigma·noise;  the network predicts u = noise − x0;
//   loss = Σ |u_θ − u|² / (samples of the step · elements of a sample).
//
// Or it predicts x0, and u_θ = (x − x0_θ)/sigma; the loss takes sigma for at
// least 0.05. Or the loss is of x0 = x − sigma·u. Tokens of sets may be matched
// to those of their noise.
//
// Every number is keyed by (seed, step, global sample index), so that the
// same sample gets the same noise on every grid and after every resume.

#ifndef TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_
#define TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/objective/objective.h"
#include "models/objective/objective.pb.h"
#include "runtime/core/philox.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct RectifiedFlowConfig {
  RectifiedFlow::Times times = RectifiedFlow::LOGIT_NORMAL;
  double logit_mean = 0;
  double logit_stddev = 1;
  double mode_scale = 1.29;
  double shift = 1;
  // By bucket (Batch::bucket); empty: `shift` of all.
  std::vector<double> bucket_shifts;
  double condition_drop = 0.1;
  bool predicts_clean = false;
  bool compares_clean = false;
  // Channels by which tokens are matched; 0: they are not.
  int64_t match_channels = 0;
  // FieldSpec::counted_by of samples, and channels of their tokens: losses are
  // means over those that are no padding. Empty: over all elements.
  std::string counted_field;
  int64_t counted_channels = 0;
};

// `samples`: what is learnt; `tokens`: of a sample, for a dynamic shift. Errors
// name the field, found, expected.
absl::StatusOr<RectifiedFlowConfig> ResolveRectifiedFlow(
    const RectifiedFlow& flow, const FieldSpec& samples, int64_t tokens = 0);

// Writes the resolved values back, so that a run's job file shows them.
void FillRectifiedFlow(const RectifiedFlowConfig& config, RectifiedFlow& flow);

class RectifiedFlowObjective final : public Objective {
 public:
  // `global_batch`: samples of a step over the whole job.
  RectifiedFlowObjective(const RectifiedFlowConfig& config, uint64_t seed,
                         int64_t global_batch)
      : config_(config), seed_(seed), global_batch_(global_batch) {}

  ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                      DType dtype) const override;
  Tensor Times(const Batch& microbatch, Device& device,
               DType dtype) const override;
  std::vector<double> SampleTimes(const Batch& microbatch) const override;
  Tensor Condition(const Batch& microbatch, std::string_view field,
                   int32_t none) const override;
  int64_t global_batch() const override { return global_batch_; }
  std::string_view counted_field() const override {
    return config_.counted_field;
  }
  void AddLosses(ForwardContext& context, const Batch& microbatch,
                 const ShardedVariable& prediction, const Tensor& target,
                 int64_t elements) const override;
  bool predicts_clean() const override { return config_.predicts_clean; }

 private:
  // What the error of a sample's prediction is multiplied by for that of what
  // is compared.
  double ErrorFactor(const Batch& batch, int64_t i) const;
  // fp32 [n].
  Tensor Sigmas(const Batch& batch, Device& device) const;

  RectifiedFlowConfig config_;
  uint64_t seed_;
  int64_t global_batch_;
};

// A sigma of the density before it is shifted, from one of the random numbers
// of `stream`.
double DrawSigma(const RectifiedFlowConfig& config, const RandomStream& stream);

// sigma·shift / (1 + (shift−1)·sigma).
double ShiftSigma(double sigma, double shift);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_
