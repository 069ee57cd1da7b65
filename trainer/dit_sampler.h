// A trained DiT on one rank, for drawing samples.

#ifndef TRIREME_TRAINER_DIT_SAMPLER_H_
#define TRIREME_TRAINER_DIT_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/dit/dit.h"
#include "models/sampling/flow_sampler.h"
#include "parallel/communicators.h"
#include "parallel/context.h"
#include "parallel/parameter_store.h"
#include "parallel/process_grid.h"
#include "trainer/training_setup.h"

namespace trireme {

// What to draw: one entry per picture.
struct SampleConditions {
  std::vector<int32_t> labels;  // empty for unconditional models
  // [n, text_tokens, text_width] and [n], for models with text.
  std::vector<float> text;
  std::vector<int32_t> text_counts;
};

class DitSampler {
 public:
  // The device outlives the sampler.
  DitSampler(const TrainingSetup& setup, Device& device);

  // Reads every parameter from a safetensors file of logical tensors. Errors
  // name the file and the tensor that is missing or has another shape.
  absl::Status LoadWeights(const std::string& path);

  // Pictures fp32 [n, c, H, W] in about [−1, 1]. Picture i's noise depends on
  // (seed, i) only. Errors: out of memory.
  absl::StatusOr<std::vector<float>> Sample(const SamplerOptions& options,
                                            uint64_t seed, int64_t count,
                                            const SampleConditions& conditions);

 private:
  Tensor Velocity(const Tensor& x, double sigma, const DitInputs& conditions,
                  const Tensor& text_counts);

  TrainingSetup setup_;
  Device& device_;
  ProcessGrid grid_;
  std::unique_ptr<Communicators> communicators_;
  std::unique_ptr<ParallelContext> context_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<DitPart> part_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_DIT_SAMPLER_H_
