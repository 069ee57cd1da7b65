// Samplers of diffusion against diffusers' DDIMScheduler (0.42.1,
// clip_sample=False), and their rules.

#include "models/sampling/diffusion_sampler.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

NoiseSchedule ScaledLinear(DiffusionPrediction prediction) {
  return {.alphas =
              CumulativeAlphas(Diffusion::SCALED_LINEAR, 1000, 0.00085, 0.012),
          .prediction = prediction};
}

void ExpectNear(const std::vector<float>& found,
                const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 2e-5 * (1 + std::abs(expected[i]))) << i;
  }
}

TEST(NoiseSchedule, HasTheAlphasOfDiffusers) {
  const auto expect = [](const std::vector<double>& alphas,
                         const std::vector<double>& expected) {
    ASSERT_EQ(alphas.size(), 1000);
    const std::vector<int> at = {0, 1, 250, 500, 998, 999};
    for (size_t i = 0; i < at.size(); ++i) {
      // Those of diffusers are products in fp32.
      EXPECT_NEAR(alphas[at[i]] / expected[i], 1, 1e-4) << at[i];
    }
  };
  expect(CumulativeAlphas(Diffusion::LINEAR, 1000, 1e-4, 0.02),
         {0.9999, 0.9997801, 0.521423, 0.07779665, 4.118194e-05, 4.03583e-05});
  expect(CumulativeAlphas(Diffusion::SCALED_LINEAR, 1000, 0.00085, 0.012),
         {0.99915, 0.998296, 0.6737923, 0.2763325, 0.004716696, 0.004660095});
  expect(
      CumulativeAlphas(Diffusion::COSINE, 1000, 0, 0),
      {0.9999587, 0.9999126, 0.845888, 0.492285, 2.428766e-06, 2.428735e-09});
}

TEST(DiffusionSampler, StepsAreThoseOfDiffusers) {
  CpuDevice device(1 << 20);
  const Tensor start = Tensor::FromValues<float>(
      device, {1, 3}, std::vector<float>{0.7F, -1.3F, 0.2F});
  // What the golden runs had in place of a network.
  const PredictionFunction predict = [&](const Tensor& x, double time, bool) {
    const Tensor y = Scale(x, 0.5);
    AddInPlace(
        Tensor::FromValues<float>(device, {1, 3}, std::vector<float>(3, time)),
        y);
    return y;
  };
  const FreshNoise fresh = [&](int64_t step) {
    return Tensor::FromValues<float>(device, {1, 3},
                                     std::vector<float>(3, 0.1F * (step + 1)));
  };
  const auto sample = [&](DiffusionPrediction prediction, Solver solver) {
    return SampleDiffusion({.solver = solver, .steps = 4},
                           ScaledLinear(prediction), predict, fresh, start)
        .ToVector<float>();
  };
  EXPECT_EQ(VisitedSteps(1000, 4), (std::vector<int64_t>{750, 500, 250, 0}));
  ExpectNear(sample(DiffusionPrediction::kNoise, Solver::kDdim),
             {-0.3726036, -3.603276, -1.180272});
  ExpectNear(sample(DiffusionPrediction::kNoise, Solver::kDdpm),
             {-0.8626947, -3.154015, -1.435525});
  ExpectNear(sample(DiffusionPrediction::kV, Solver::kDdim),
             {-0.1152792, -0.7506093, -0.2741117});
  ExpectNear(sample(DiffusionPrediction::kV, Solver::kDdpm),
             {-0.2427012, -0.3311453, -0.2648122});
}

// DDPMScheduler with variance_type="learned_range" (0.42.1). DDIM does not read
// variances, and guidance is not theirs.
TEST(DiffusionSampler, LearnedVariancesAreThoseOfDiffusers) {
  CpuDevice device(1 << 20);
  const Tensor start = Tensor::FromValues<float>(
      device, {1, 3}, std::vector<float>{0.7F, -1.3F, 0.2F});
  const auto sample = [&](DiffusionPrediction prediction, Solver solver,
                          double guidance = 1) {
    NoiseSchedule schedule = ScaledLinear(prediction);
    schedule.learned_variance = true;
    const PredictionFunction predict = [&](const Tensor& x, double time,
                                           bool conditional) {
      const Tensor y = Tensor::Zeros(device, {1, 6}, DType::kFloat32);
      Tensor mean = Scale(x, 0.5);
      AddInPlace(Tensor::FromValues<float>(device, {1, 3},
                                           std::vector<float>(3, time)),
                 mean);
      WriteSlice(mean, 1, 0, y);
      WriteSlice(Scale(x, conditional ? 0.25 : 100), 1, 3, y);
      return y;
    };
    const FreshNoise fresh = [&](int64_t step) {
      return Tensor::FromValues<float>(
          device, {1, 3}, std::vector<float>(3, 0.1F * (step + 1)));
    };
    return SampleDiffusion({.solver = solver, .steps = 4, .guidance = guidance},
                           schedule, predict, fresh, start)
        .ToVector<float>();
  };
  const std::vector<double> of_noise = {-0.8197494, -3.1444302, -1.4028838};
  ExpectNear(sample(DiffusionPrediction::kNoise, Solver::kDdpm), of_noise);
  ExpectNear(sample(DiffusionPrediction::kNoise, Solver::kDdpm, 3), of_noise);
  ExpectNear(sample(DiffusionPrediction::kV, Solver::kDdpm),
             {-0.2027965, -0.2954974, -0.2259901});
  ExpectNear(sample(DiffusionPrediction::kNoise, Solver::kDdim),
             {-0.3726036, -3.603276, -1.180272});
}

// Of data N(0, s²) the best predictions are linear, and samples are such.
TEST(DiffusionSampler, TheBestPredictionsMakeTheData) {
  constexpr double kStddev = 0.3;
  constexpr int64_t kSamples = 5000;
  CpuDevice device(1 << 26);
  std::vector<float> noise(kSamples);
  RandomStream({.seed = 5}).FillNormal(0, noise);
  const Tensor start = Tensor::FromValues<float>(device, {kSamples, 1}, noise);
  for (const auto prediction :
       {DiffusionPrediction::kNoise, DiffusionPrediction::kV}) {
    const NoiseSchedule schedule = ScaledLinear(prediction);
    const PredictionFunction best = [&](const Tensor& x, double time, bool) {
      const auto t = static_cast<int64_t>(std::lround(time * kTimeUnit));
      const double a = schedule.signal(t), b = schedule.noise(t);
      const double variance = a * a * kStddev * kStddev + b * b;
      const double noise_factor = b / variance;
      const double clean_factor = a * kStddev * kStddev / variance;
      return Scale(x, prediction == DiffusionPrediction::kV
                          ? a * noise_factor - b * clean_factor
                          : noise_factor);
    };
    for (const Solver solver : {Solver::kDdim, Solver::kDdpm}) {
      const FreshNoise fresh = [&](int64_t step) {
        std::vector<float> values(kSamples);
        RandomStream({.seed = 6, .step = static_cast<uint64_t>(step)})
            .FillNormal(0, values);
        return Tensor::FromValues<float>(device, {kSamples, 1}, values);
      };
      double squares = 0;
      for (const float x : SampleDiffusion({.solver = solver, .steps = 1000},
                                           schedule, best, fresh, start)
                               .ToVector<float>()) {
        squares += double{x} * x / kSamples;
      }
      // So many steps leave 1 and 2 % out, so few samples 1 % more.
      EXPECT_NEAR(std::sqrt(squares), kStddev, 0.04 * kStddev);
    }
  }
}

TEST(CheckSampling, RefusesWhatAModelHasNot) {
  const NoiseSchedule schedule = ScaledLinear(DiffusionPrediction::kNoise);
  EXPECT_TRUE(CheckSampling({.solver = Solver::kHeun}, nullptr).ok());
  EXPECT_TRUE(
      CheckSampling({.solver = Solver::kDdim, .steps = 1000}, &schedule).ok());
  EXPECT_EQ(MessageOf(CheckSampling({.solver = Solver::kDdpm}, nullptr)),
            "solver: found one of diffusion, expected EULER or HEUN with "
            "objective.rectified_flow");
  EXPECT_EQ(MessageOf(CheckSampling({.solver = Solver::kEuler}, &schedule)),
            "solver: found one of flows, expected DDIM or DDPM with "
            "objective.diffusion");
  EXPECT_EQ(MessageOf(CheckSampling({.solver = Solver::kDdim, .steps = 1001},
                                    &schedule)),
            "steps: found 1001, expected at most the 1000 of the schedule");
}

}  // namespace
}  // namespace trireme
