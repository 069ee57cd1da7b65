// What a network learns on a discrete schedule of noise.

#include "models/objective/diffusion.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/communicators.h"
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
