// Draws samples from a trained model on one rank.

#ifndef TRIREME_TRAINER_SAMPLER_H_
#define TRIREME_TRAINER_SAMPLER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/sampling/flow_sampler.h"
#include "runtime/comm/single.h"
#include "trainer/local_model.h"
#include "trainer/training_setup.h"

namespace trireme {

class Sampler {
 public:
  // The device outlives the sampler.
  Sampler(const TrainingSetup& setup, Device& device);

  // Reads every parameter from a safetensors file of logical tensors. Errors
  // name the file and the tensor that is missing or has another shape.
  absl::Status LoadWeights(const std::string& path);

  // One sample for each prompt, whose class and text are what it is drawn for:
  // fp32 [n, ..] of the shape that the model learns, one after the other.
  // Sample i's noise depends on (seed, i) only. Errors: a prompt that does not
  // fit the model; out of memory.
  absl::StatusOr<std::vector<float>> Draw(const SamplerOptions& options,
                                          uint64_t seed,
                                          std::span<const Sample> prompts);

 private:
  Tensor Velocity(const Tensor& x, double time, Batch batch);

  TrainingSetup setup_;
  SingleWorld world_;
  LocalModel model_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLER_H_
