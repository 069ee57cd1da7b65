// What a network learns on a discrete schedule of noise.

#include "models/objective/diffusion.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr uint64_t kSeed = 7;
constexpr float kPixel = 0.25F;

DiffusionConfig Config(Diffusion::Prediction prediction, double gamma = 0) {
  Diffusion diffusion;
  diffusion.set_prediction(prediction);
  diffusion.set_min_snr_gamma(gamma);
  diffusion.set_schedule(Diffusion::COSINE);
  const auto config = ResolveDiffusion(diffusion);
  CHECK_OK(config.status());
  return *config;
}

class DiffusionTest : public testing::Test {
 protected:
  Batch MakeBatch(int64_t n, int64_t elements) {
    Batch batch;
    batch.step = 1;
    for (int64_t i = 0; i < n; ++i) batch.samples.push_back(100 + i);
    batch.fields[kPixelsField].values = Tensor::FromValues<float>(
        device_, {n, 1, 1, elements}, std::vector<float>(n * elements, kPixel));
    batch.fields[kLabelField].values =
        Tensor::FromValues<int32_t>(device_, {n}, std::vector<int32_t>(n, 3));
    return batch;
  }
  ModelInputs Prepare(const DiffusionConfig& config, const Batch& batch) {
    return DiffusionObjective(config, kSeed, batch.size())
        .Prepare(batch, kPixelsField, DType::kFloat32);
  }

  CpuDevice device_{int64_t{1} << 28};
};

TEST_F(DiffusionTest, SamplesAreMixedWithTheNoiseOfTheirStep) {
  constexpr int64_t kSamples = 200, kElements = 5;
  const Batch batch = MakeBatch(kSamples, kElements);
  const DiffusionConfig config = Config(Diffusion::NOISE);
  const ModelInputs of_noise = Prepare(config, batch);
  const ModelInputs of_v = Prepare(Config(Diffusion::V), batch);
  const std::vector<float> x = of_noise.x.ToVector<float>();
  const std::vector<float> noise = of_noise.target.ToVector<float>();
  const std::vector<float> v = of_v.target.ToVector<float>();
  const std::vector<float> times = of_noise.times.ToVector<float>();
  EXPECT_EQ(of_v.x.ToVector<float>(), x);
  EXPECT_EQ(of_v.times.ToVector<float>(), times);
  double mean = 0, squares = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double step = double{times[i / kElements]} * kTimeUnit;
    const int64_t t = std::lround(step);
    EXPECT_NEAR(step, static_cast<double>(t), 1e-3);
    ASSERT_GE(t, 0);
    ASSERT_LT(t, 1000);
    const double a = config.schedule.signal(t), b = config.schedule.noise(t);
    EXPECT_NEAR(x[i], a * kPixel + b * noise[i], 1e-5) << i;
    EXPECT_NEAR(v[i], a * noise[i] - b * kPixel, 1e-5) << i;
    mean += noise[i] / static_cast<double>(x.size());
    squares += noise[i] * noise[i] / static_cast<double>(x.size());
  }
  EXPECT_NEAR(mean, 0, 0.1);
  EXPECT_NEAR(squares, 1, 0.15);
}

TEST_F(DiffusionTest, StepsAreDrawnEvenly) {
  constexpr int64_t kSamples = 20000;
  const Batch batch = MakeBatch(kSamples, 1);
  std::vector<int64_t> tenths(10);
  for (const float time :
       Prepare(Config(Diffusion::NOISE), batch).times.ToVector<float>()) {
    ++tenths[std::lround(double{time} * kTimeUnit) / 100];
  }
  for (const int64_t count : tenths) {
    EXPECT_NEAR(static_cast<double>(count), kSamples / 10.0, 150);
  }
}

// Hang et al., with γ = 5.
TEST_F(DiffusionTest, LossesWeighByTheSignalToNoiseRatio) {
  constexpr int64_t kSamples = 6, kElements = 4;
  const Batch batch = MakeBatch(kSamples, kElements);
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  const Shape shape = {kSamples, 1, kElements};
  for (const auto prediction : {Diffusion::NOISE, Diffusion::V}) {
    for (const double gamma : {0.0, 5.0}) {
      const DiffusionConfig config = Config(prediction, gamma);
      const ModelInputs inputs = Prepare(config, batch);
      const std::vector<float> target = inputs.target.ToVector<float>();
      const std::vector<float> times = inputs.times.ToVector<float>();
      double expected = 0;
      for (size_t i = 0; i < target.size(); ++i) {
        const int64_t t = std::lround(double{times[i / kElements]} * kTimeUnit);
        const double alpha = config.schedule.alphas[t];
        const double snr = alpha / (1 - alpha);
        double weight = 1;
        if (gamma > 0) {
          weight = std::min(snr, gamma) /
                   (prediction == Diffusion::V ? snr + 1 : snr);
        }
        expected +=
            weight * target[i] * target[i] / static_cast<double>(target.size());
      }
      Tape tape(device_);
      ForwardContext context{tape, parallel};
      AxisStates states;
      states[Axis::kData] = AxisState::Shard(0);
      const Tensor zeros = Tensor::Zeros(device_, shape, DType::kFloat32);
      DiffusionObjective(config, kSeed, kSamples)
          .AddLosses(context, batch, {Variable(zeros), states},
                     inputs.target.Reshape(shape), kElements);
      CHECK_OK(parallel.status());
      const std::vector<Tape::Loss> losses = tape.TakeLosses();
      EXPECT_NEAR(losses.at(0).weight * losses.at(0).value.ToVector<float>()[0],
                  expected, 1e-4 * expected);
    }
  }
}

// Nichol and Dhariwal's L_hybrid, by Ho et al.'s means of x_{t−1}: its gradient
// trains the variance alone, so only values tell which step's it is.
TEST_F(DiffusionTest, LearnedVariancesHaveTheBoundOfTheirStep) {
  constexpr int64_t kSamples = 40, kPixels = 3;
  const Batch batch = MakeBatch(kSamples, kPixels);
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  for (const auto prediction : {Diffusion::NOISE, Diffusion::V}) {
    Diffusion diffusion;
    diffusion.set_prediction(prediction);
    diffusion.set_steps(100);
    diffusion.set_beta_end(0.2);
    const auto config = ResolveDiffusion(diffusion, /*learned_variance=*/true);
    CHECK_OK(config.status());
    EXPECT_EQ(diffusion.bound_weight(), 0.001);
    const NoiseSchedule& schedule = config->schedule;
    const ModelInputs inputs = Prepare(*config, batch);
    ASSERT_EQ(inputs.target.shape(), Shape({kSamples, 3, 1, kPixels}));
    const std::vector<float> x = inputs.x.ToVector<float>();
    const std::vector<float> target = inputs.target.ToVector<float>();
    const std::vector<float> times = inputs.times.ToVector<float>();
    // The model predicts 0 and a variance in the middle.
    double errors = 0, bound = 0;
    int steps_of_first = 0;
    for (int64_t i = 0; i < kSamples; ++i) {
      const int64_t t = std::lround(double{times[i]} * kTimeUnit);
      const double a = schedule.signal(t);
      const double before = t > 0 ? schedule.alphas[t - 1] : 1;
      const double beta = 1 - schedule.alphas[t] / before;
      // Of the first step's, which is 0, the next one's stands in.
      const double posterior =
          t > 0 ? beta * (1 - before) / (1 - schedule.alphas[t])
                : (1 - schedule.alphas[1] / schedule.alphas[0]) *
                      (1 - schedule.alphas[0]) / (1 - schedule.alphas[1]);
      if (t == 0) ++steps_of_first;
      for (int64_t k = 0; k < kPixels; ++k) {
        const double of_target = target[i * 3 * kPixels + k];
        EXPECT_EQ(target[(i * 3 + 1) * kPixels + k], kPixel);
        EXPECT_EQ(target[(i * 3 + 2) * kPixels + k], 1);
        errors += of_target * of_target;
        const double clean = prediction == Diffusion::V
                                 ? a * x[i * kPixels + k]
                                 : x[i * kPixels + k] / a;
        const double offset = std::sqrt(before) * beta /
                              (1 - schedule.alphas[t]) * (kPixel - clean);
        const double log_variance = (std::log(beta) + std::log(posterior)) / 2;
        if (t == 0) {
          const auto below = [&](double x) {
            return std::erf((x - clean) * std::exp(-log_variance / 2) /
                            std::numbers::sqrt2) /
                   2;
          };
          bound -=
              std::log2(below(kPixel + 1.0 / 255) - below(kPixel - 1.0 / 255));
          continue;
        }
        bound += 0.5 *
                 (log_variance - std::log(posterior) - 1 +
                  (posterior + offset * offset) / std::exp(log_variance)) /
                 std::numbers::ln2;
      }
    }
    ASSERT_EQ(steps_of_first, 1) << "another seed";
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    // Pixel by pixel, as patches of one pixel have them.
    std::vector<float> by_pixel;
    for (int64_t i = 0; i < kSamples; ++i) {
      for (int64_t k = 0; k < kPixels; ++k) {
        for (int64_t c = 0; c < 3; ++c) {
          by_pixel.push_back(target[(i * 3 + c) * kPixels + k]);
        }
      }
    }
    DiffusionObjective(*config, kSeed, kSamples)
        .AddLosses(context, batch,
                   {Variable(Tensor::Zeros(device_, {kSamples, kPixels, 2},
                                           DType::kFloat32)),
                    states},
                   Tensor::FromValues<float>(device_, {kSamples, kPixels, 3},
                                             by_pixel),
                   kPixels);
    CHECK_OK(parallel.status());
    const std::vector<Tape::Loss> losses = tape.TakeLosses();
    ASSERT_EQ(losses.size(), 2);
    const auto value = [](const Tape::Loss& loss) {
      return loss.weight * loss.value.ToVector<float>()[0];
    };
    constexpr double kElements = kSamples * kPixels;
    EXPECT_EQ(losses[0].name, kObjectiveLoss);
    EXPECT_NEAR(value(losses[0]), errors / kElements, 1e-5);
    EXPECT_EQ(losses[1].name, kVariationalBound);
    const double expected = 0.001 * 100 * bound / kElements;
    EXPECT_NEAR(value(losses[1]), expected, 1e-4 * expected);
  }
}

TEST_F(DiffusionTest, ConditionsAreDroppedAsOftenAsTheJobSays) {
  constexpr int64_t kSamples = 20000;
  DiffusionConfig config = Config(Diffusion::NOISE);
  config.condition_drop = 0.3;
  const std::vector<int32_t> labels =
      DiffusionObjective(config, kSeed, kSamples)
          .Condition(MakeBatch(kSamples, 1), kLabelField, /*none=*/10)
          .ToVector<int32_t>();
  EXPECT_NEAR(std::count(labels.begin(), labels.end(), 10), 6000, 250);
}

TEST(ResolveDiffusion, FillsDefaultsAndNamesWhatIsWrong) {
  Diffusion diffusion;
  ASSERT_TRUE(ResolveDiffusion(diffusion).ok());
  EXPECT_EQ(diffusion.prediction(), Diffusion::NOISE);
  EXPECT_EQ(diffusion.schedule(), Diffusion::LINEAR);
  EXPECT_EQ(diffusion.steps(), 1000);
  EXPECT_EQ(diffusion.beta_end(), 0.02);
  EXPECT_EQ(diffusion.condition_drop(), 0.1);
  // What a run's job has is resolved once more.
  EXPECT_TRUE(ResolveDiffusion(diffusion).ok());
  diffusion.set_bound_weight(0.5);
  EXPECT_EQ(MessageOf(ResolveDiffusion(diffusion).status()),
            "objective.diffusion.bound_weight: found 0.5, expected none for a "
            "model without learned_variance");
  diffusion.clear_bound_weight();
  diffusion.set_beta_start(0.5);
  EXPECT_EQ(MessageOf(ResolveDiffusion(diffusion).status()),
            "objective.diffusion.beta_end: found 0.02, expected 0.5 to 0.999");
  diffusion.set_schedule(Diffusion::COSINE);
  EXPECT_EQ(MessageOf(ResolveDiffusion(diffusion).status()),
            "objective.diffusion.beta_start: found with schedule COSINE, "
            "expected it with LINEAR or SCALED_LINEAR");
}

}  // namespace
}  // namespace trireme
