#include "tests/goldens/golden_training_testing.h"

#include <cmath>
#include <memory>

#include "gtest/gtest.h"
#include "runtime/autograd/tape.h"
#include "runtime/core/log.h"
#include "runtime/ops/adamw.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

// Steps add to what is rounded.
constexpr double kTolerance = 1e-5;
constexpr char kFile[] = "tests/goldens/training.safetensors";
constexpr size_t kSteps = 100;
// As generate_training.py has them.
AdamWOptions OptionsOf(size_t step, double learning_rate) {
  return {.learning_rate = learning_rate,
          .beta1 = 0.9,
          .beta2 = 0.95,
          .eps = 1e-8,
          .weight_decay = 0.1,
          .step = static_cast<int64_t>(step) + 1};
}

struct Moments {
  Tensor m, v;
};

}  // namespace

std::vector<double> GoldenDraws::Uniform(int64_t count) {
  std::vector<double> values(count);
  for (double& value : values) {
    state_ += 0x9E3779B97F4A7C15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    value = static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  return values;
}

std::vector<double> GoldenDraws::Noise(int64_t count) {
  std::vector<double> values = Uniform(count);
  for (double& value : values) value = std::sqrt(12.0) * (value - 0.5);
  return values;
}

Tensor GoldenDraws::Noise(const Shape& shape) {
  return Tensor::FromValues<double>(device_, shape,
                                    Noise(shape.num_elements()));
}

GoldenDraws::Flow GoldenDraws::DrawFlow(const Tensor& clean) {
  const std::vector<double> samples = Doubles(clean);
  const std::vector<double> sigmas = Uniform(clean.dim(0));
  const std::vector<double> noise = Noise(clean.num_elements());
  const size_t of_sample = samples.size() / sigmas.size();
  std::vector<double> x(samples.size()), velocity(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    const double sigma = sigmas[i / of_sample];
    x[i] = (1 - sigma) * samples[i] + sigma * noise[i];
    velocity[i] = noise[i] - samples[i];
  }
  return {
      .x = Tensor::FromValues<double>(device_, clean.shape(), x),
      .sigmas = Tensor::FromValues<double>(device_, {clean.dim(0)}, sigmas),
      .velocity = Tensor::FromValues<double>(device_, clean.shape(), velocity)};
}

void ExpectTraining(
    const std::string& name, GoldenRank& rank,
    const std::function<void(ForwardContext&, GoldenDraws&)>& record,
    double learning_rate) {
  Device& device = rank.store.device();
  const std::vector<double> expected =
      Doubles(GoldenFile(kFile, device).Golden(name + ".losses"));
  ASSERT_EQ(expected.size(), kSteps);
  std::vector<Moments> moments;
  for (const auto& parameter : rank.store.parameters()) {
    const Shape& shape = parameter->global_shape;
    moments.push_back({Tensor::Zeros(device, shape, DType::kFloat64),
                       Tensor::Zeros(device, shape, DType::kFloat64)});
  }
  for (size_t step = 0; step < kSteps; ++step) {
    for (const auto& parameter : rank.store.parameters()) {
      parameter->grad.FillZero();
    }
    Tape tape(device);
    ForwardContext context{tape, rank.parallel};
    GoldenDraws draws(device, step);
    record(context, draws);
    CHECK_OK(rank.parallel.status());
    ASSERT_NEAR(WeightedSum(tape), expected[step], kTolerance * expected[step])
        << name << " before step " << step + 1;
    tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
    for (size_t i = 0; i < moments.size(); ++i) {
      const Parameter& parameter = *rank.store.parameters()[i];
      AdamWStep(OptionsOf(step, learning_rate), parameter.grad, parameter.value,
                moments[i].m, moments[i].v, parameter.value);
    }
  }
}

}  // namespace trireme
