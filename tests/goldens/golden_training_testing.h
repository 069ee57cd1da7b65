// Training of tiny models beside PyTorch's, from training.safetensors (see
// generate_training.py). One gradient that is right says nothing of the next
// one, nor of the optimizer; a sum of many does.

#ifndef TRIREME_TESTS_GOLDENS_GOLDEN_TRAINING_TESTING_H_
#define TRIREME_TESTS_GOLDENS_GOLDEN_TRAINING_TESTING_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "parallel/grid/context.h"
#include "runtime/core/shape.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor.h"
#include "tests/goldens/golden_rank_testing.h"

namespace trireme {

// One step's numbers, which the generator draws as well, one after the other:
// SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators",
// 2014) from the step, from 0. Tensors are fp64.
class GoldenDraws {
 public:
  GoldenDraws(Device& device, uint64_t step) : device_(device), state_(step) {}

  // Evenly spread in [0, 1).
  std::vector<double> Uniform(int64_t count);
  // Of mean 0 and variance 1.
  std::vector<double> Noise(int64_t count);
  Tensor Noise(const Shape& shape);

  // Between samples and noise: x = (1 − σ)·clean + σ·noise at times σ [b], and
  // the velocity noise − clean.
  struct Flow {
    Tensor x;
    Tensor sigmas;
    Tensor velocity;
  };
  Flow DrawFlow(const Tensor& clean);

 private:
  Device& device_;
  uint64_t state_;
};

// Trains the rank's parameters by AdamW: `record` puts one step's losses on the
// tape. Before each of 100 steps the loss is that of `name` in the file, within
// 1e-5 of it.
void ExpectTraining(
    const std::string& name, GoldenRank& rank,
    const std::function<void(ForwardContext&, GoldenDraws&)>& record,
    double learning_rate = 2e-3);

}  // namespace trireme

#endif  // TRIREME_TESTS_GOLDENS_GOLDEN_TRAINING_TESTING_H_
