// Rectified flow (Liu et al., "Flow straight and fast"; sampling of sigma by
// Esser et al., "Scaling rectified flow transformers", section 3.1).
//
//   sigma = sigmoid(mean + stddev·N(0,1)), then shifted;
//   x = (1−sigma)·x0 + sigma·noise;  the network predicts u = noise − x0;
//   loss = mean |u_θ − u|².
//
// Every number is keyed by (seed, step, global sample index), so that the
// same sample gets the same noise on every grid and after every resume.

#ifndef TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_
#define TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/model.pb.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct RectifiedFlowConfig {
  double logit_mean = 0;
  double logit_stddev = 1;
  double shift = 1;
  double condition_drop = 0.1;
};

// Errors name the field, found, expected.
absl::StatusOr<RectifiedFlowConfig> ResolveRectifiedFlow(
    const RectifiedFlow& flow);

// What the network sees of a batch, and what it must predict.
struct NoisedBatch {
  Tensor x;            // compute dtype [n, c, H, W]
  Tensor target;       // compute dtype [n, c, H, W]
  Tensor sigmas;       // fp32 (fp64 for fp64) [n]
  Tensor labels;       // int32 [n]; dropped ones are `dropped_label`
  Tensor text_counts;  // int32 [n]; 0 where dropped
};

NoisedBatch AddNoise(const RectifiedFlowConfig& config, uint64_t seed,
                     const Batch& batch, int32_t dropped_label, DType dtype);

// The condition drops alone: labels and text counts as AddNoise gives them
// (stages that read nothing else need the counts).
Tensor DropTextCounts(const RectifiedFlowConfig& config, uint64_t seed,
                      const Batch& batch);

// sigma·shift / (1 + (shift−1)·sigma).
double ShiftSigma(double sigma, double shift);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_RECTIFIED_FLOW_H_
