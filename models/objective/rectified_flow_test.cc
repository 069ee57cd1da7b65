// What a network is trained on: times, noise, targets and dropped conditions.

#include "models/objective/rectified_flow.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int32_t kDroppedLabel = 10;
constexpr int64_t kMany = 20000;

class RectifiedFlowTest : public testing::Test {
 protected:
  // Samples first, first + 1, ... of one picture element each (or more), with
  // labels 0 to 9 and 1 to 5 text tokens.
  Batch MakeBatch(int64_t n, int64_t elements = 1, float pixel = 0,
                  int64_t step = 1) {
    Batch batch;
    batch.step = step;
    std::vector<int32_t> labels, counts;
    for (int64_t i = 0; i < n; ++i) {
      batch.samples.push_back(100 + i);
      labels.push_back(static_cast<int32_t>(i % 10));
      counts.push_back(static_cast<int32_t>(i % 5 + 1));
    }
    batch.fields[kPixelsField].values = Tensor::FromValues<float>(
        device_, {n, 1, 1, elements}, std::vector<float>(n * elements, pixel));
    batch.fields[kLabelField].values =
        Tensor::FromValues<int32_t>(device_, {n}, labels);
    batch.fields[kTextCountField].values =
        Tensor::FromValues<int32_t>(device_, {n}, counts);
    return batch;
  }

  ModelInputs Noised(const RectifiedFlowConfig& config, const Batch& batch,
                     uint64_t seed = 7, DType dtype = DType::kFloat32) {
    return RectifiedFlowObjective(config, seed, batch.size())
        .Prepare(batch, kPixelsField, dtype);
  }
  std::vector<int32_t> Condition(const RectifiedFlowConfig& config,
                                 const Batch& batch, const char* field,
                                 int32_t none) {
    return RectifiedFlowObjective(config, /*seed=*/7, batch.size())
        .Condition(batch, field, none)
        .ToVector<int32_t>();
  }

  CpuDevice device_{int64_t{1} << 28};
};

// The largest distance between the distribution of `values` and a normal one
// (Kolmogorov and Smirnov); above 1.63/√n for one true sample in a hundred.
double DistanceFromNormal(std::vector<double> values, double mean,
                          double stddev) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double distance = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected =
        std::erfc((mean - values[i]) / stddev / std::numbers::sqrt2) / 2;
    distance =
        std::max({distance, std::abs(expected - static_cast<double>(i) / n),
                  std::abs(expected - static_cast<double>(i + 1) / n)});
  }
  return distance;
}

double Logit(double sigma) { return std::log(sigma / (1 - sigma)); }

// Other times of training are another model, though its loss falls as well.
TEST_F(RectifiedFlowTest, TimesAreLogitNormalAndShifted) {
  const double limit = 1.63 / std::sqrt(static_cast<double>(kMany));
  for (const RectifiedFlowConfig& config :
       {RectifiedFlowConfig{},
        RectifiedFlowConfig{.logit_mean = -0.5, .logit_stddev = 1.3},
        RectifiedFlowConfig{.logit_mean = 0.2, .shift = 3}}) {
    std::vector<double> logits;
    for (float sigma :
         Noised(config, MakeBatch(kMany)).times.ToVector<float>()) {
      ASSERT_GT(sigma, 0);
      ASSERT_LT(sigma, 1);
      logits.push_back(Logit(sigma));
    }
    // The shift adds its logarithm to the logit.
    EXPECT_LT(
        DistanceFromNormal(logits, config.logit_mean + std::log(config.shift),
                           config.logit_stddev),
        limit);
  }
}

// FLUX's shift grows with the tokens: large pictures need more noise.
TEST_F(RectifiedFlowTest, EachBucketHasItsOwnShift) {
  const RectifiedFlowConfig config = {.shift = 2, .bucket_shifts = {2, 1}};
  Batch large = MakeBatch(100), small = MakeBatch(100);
  small.bucket = 1;
  const auto shifted = Noised(config, large).times.ToVector<float>();
  const auto plain = Noised(config, small).times.ToVector<float>();
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(shifted[i], ShiftSigma(plain[i], 2), 1e-6);
    EXPECT_GT(shifted[i], plain[i]);
  }
}

TEST(ShiftSigmaTest, KeepsTheEndsAndMovesTheRest) {
  EXPECT_EQ(ShiftSigma(0, 3), 0);
  EXPECT_EQ(ShiftSigma(1, 3), 1);
  EXPECT_DOUBLE_EQ(ShiftSigma(0.5, 3), 0.75);
  EXPECT_DOUBLE_EQ(ShiftSigma(0.3, 1), 0.3);
  for (double sigma : {0.01, 0.4, 0.99}) {
    EXPECT_NEAR(ShiftSigma(ShiftSigma(sigma, 3), 1.0 / 3), sigma, 1e-12);
  }
}

// target = noise − pixels and x = (1 − sigma)·pixels + sigma·noise. With the
// other sign a sampler would run away from the pictures.
TEST_F(RectifiedFlowTest, TargetIsNoiseLessPixels) {
  constexpr int64_t kElements = 50;
  constexpr float kPixel = 0.75f;
  const Batch batch = MakeBatch(kMany / kElements, kElements, kPixel);
  const ModelInputs noised = Noised({}, batch);
  const auto x = noised.x.ToVector<float>();
  const auto target = noised.target.ToVector<float>();
  const auto sigmas = noised.times.ToVector<float>();
  std::vector<double> noise;
  for (size_t i = 0; i < x.size(); ++i) {
    noise.push_back(double{target[i]} + kPixel);
    const double sigma = sigmas[i / kElements];
    ASSERT_NEAR(x[i], (1 - sigma) * kPixel + sigma * noise[i], 1e-5);
  }
  EXPECT_LT(DistanceFromNormal(noise, 0, 1),
            1.63 / std::sqrt(static_cast<double>(noise.size())));
}

// Guidance needs a model of pictures without condition.
TEST_F(RectifiedFlowTest, DropsConditionsAtTheirRate) {
  const Batch batch = MakeBatch(kMany);
  const auto labels = batch[kLabelField].ToVector<int32_t>();
  const auto counts = batch[kTextCountField].ToVector<int32_t>();
  for (const double rate : {0.0, 0.1, 0.4, 1.0}) {
    const RectifiedFlowConfig config{.condition_drop = rate};
    const ModelInputs noised = Noised(config, batch);
    const auto sigmas = noised.times.ToVector<float>();
    const auto seen = Condition(config, batch, kLabelField, kDroppedLabel);
    const auto texts = Condition(config, batch, kTextCountField, 0);
    int64_t dropped = 0;
    double logits = 0;
    for (int64_t i = 0; i < kMany; ++i) {
      const bool drop = seen[i] == kDroppedLabel;
      // A sample loses both of its conditions or none.
      ASSERT_EQ(seen[i], drop ? kDroppedLabel : labels[i]);
      ASSERT_EQ(texts[i], drop ? 0 : counts[i]);
      if (!drop) continue;
      ++dropped;
      logits += Logit(sigmas[i]);
    }
    const auto n = static_cast<double>(kMany);
    EXPECT_NEAR(static_cast<double>(dropped), rate * n,
                4 * std::sqrt(n * rate * (1 - rate)));
    // Whatever the time.
    if (dropped > 0) {
      const auto count = static_cast<double>(dropped);
      EXPECT_NEAR(logits / count, 0, 4 / std::sqrt(count));
    }
  }
}

// A grid, a resume or another number of microbatches splits the same samples
// in other ways.
TEST_F(RectifiedFlowTest, ASampleIsTheSameInEverySplit) {
  constexpr int64_t kSamples = 12;
  const Batch batch = MakeBatch(kSamples, 6, 0.5f);
  const RectifiedFlowConfig config{.condition_drop = 0.5};
  const ModelInputs whole = Noised(config, batch);
  const auto labels = Condition(config, batch, kLabelField, kDroppedLabel);
  for (const int64_t ranks : {2, 3, 12}) {
    const int64_t share = kSamples / ranks;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const int64_t begin = rank * share, end = begin + share;
      const ModelInputs part = Noised(config, batch.Slice(begin, end));
      const auto expect_part = [&]<typename T>(T, const Tensor& got,
                                               const Tensor& all) {
        EXPECT_EQ(got.ToVector<T>(), all.Slice(begin, end).ToVector<T>());
      };
      expect_part(float{}, part.x, whole.x);
      expect_part(float{}, part.target, whole.target);
      expect_part(float{}, part.times, whole.times);
      EXPECT_EQ(
          Condition(config, batch.Slice(begin, end), kLabelField,
                    kDroppedLabel),
          std::vector<int32_t>(labels.begin() + begin, labels.begin() + end));
    }
  }
}

TEST_F(RectifiedFlowTest, EveryStepSampleAndSeedHasItsOwnNumbers) {
  const ModelInputs first = Noised({}, MakeBatch(2, 4));
  const auto noise = first.target.ToVector<float>();
  const auto sigmas = first.times.ToVector<float>();
  EXPECT_NE(noise[0], noise[4]);
  EXPECT_NE(sigmas[0], sigmas[1]);
  for (const ModelInputs& other : {Noised({}, MakeBatch(2, 4, 0, /*step=*/2)),
                                   Noised({}, MakeBatch(2, 4), /*seed=*/8)}) {
    EXPECT_NE(other.target.ToVector<float>(), noise);
    EXPECT_NE(other.times.ToVector<float>(), sigmas);
  }
}

TEST_F(RectifiedFlowTest, OtherTypesHoldTheSameNumbers) {
  const Batch batch = MakeBatch(3, 4, 0.5f);
  const ModelInputs single = Noised({}, batch);
  const ModelInputs twice = Noised({}, batch, 7, DType::kFloat64);
  const auto expected = single.x.ToVector<float>();
  EXPECT_EQ(twice.x.ToVector<double>(),
            std::vector<double>(expected.begin(), expected.end()));
  EXPECT_EQ(twice.times.dtype(), DType::kFloat64);
  const ModelInputs half = Noised({}, batch, 7, DType::kBFloat16);
  EXPECT_EQ(half.x.dtype(), DType::kBFloat16);
  EXPECT_EQ(half.target.dtype(), DType::kBFloat16);
  // Times are never rounded to 8 bits.
  EXPECT_EQ(half.times.ToVector<float>(), single.times.ToVector<float>());
}

// Where each token of the noise goes to any one of the set's, a small model
// sees only their mean.
TEST_F(RectifiedFlowTest, TokensGoToThoseThatTheirNoiseIsNearTo) {
  constexpr int64_t kSamples = 3, kTokens = 6, kChannels = 4, kMatched = 2;
  Batch batch = MakeBatch(kSamples);
  std::vector<float> values(kSamples * kTokens * kChannels);
  RandomStream({.seed = 11}).FillNormal(0, values);
  batch.fields[kTokenSetField].values = Tensor::FromValues<float>(
      device_, {kSamples, kTokens, kChannels}, values);
  const auto prepare = [&](const RectifiedFlowConfig& config) {
    return RectifiedFlowObjective(config, /*seed=*/7, kSamples)
        .Prepare(batch, kTokenSetField, DType::kFloat32);
  };
  const ModelInputs plain = prepare({.predicts_clean = true});
  EXPECT_EQ(plain.target.ToVector<float>(), values);
  const std::vector<float> velocity = prepare({}).target.ToVector<float>();
  const ModelInputs matched =
      prepare({.predicts_clean = true, .match_channels = kMatched});
  const std::vector<float> tokens = matched.target.ToVector<float>();
  for (int64_t i = 0; i < kSamples; ++i) {
    const auto token = [&](const std::vector<float>& of, int64_t t) {
      const auto first = of.begin() + (i * kTokens + t) * kChannels;
      return std::vector<float>(first, first + kChannels);
    };
    std::vector<std::vector<float>> before, after;
    std::vector<double> costs;
    for (int64_t t = 0; t < kTokens; ++t) {
      before.push_back(token(values, t));
      after.push_back(token(tokens, t));
      for (int64_t other = 0; other < kTokens; ++other) {
        double cost = 0;
        for (int64_t c = 0; c < kMatched; ++c) {
          const double noise = token(velocity, t)[c] + token(values, t)[c];
          cost += std::pow(noise - token(tokens, other)[c], 2);
        }
        costs.push_back(cost);
      }
    }
    // Whole tokens moved, and no two of them would rather change places.
    for (int64_t a = 0; a < kTokens; ++a) {
      for (int64_t b = 0; b < kTokens; ++b) {
        EXPECT_LE(costs[a * kTokens + a] + costs[b * kTokens + b],
                  costs[a * kTokens + b] + costs[b * kTokens + a] + 1e-5);
      }
    }
    std::sort(before.begin(), before.end());
    std::sort(after.begin(), after.end());
    EXPECT_EQ(after, before);
  }
  // The noise is the same, and so are the times.
  EXPECT_EQ(matched.times.ToVector<float>(), plain.times.ToVector<float>());
}

// The loss of a predicted x0 is that of the velocity which follows from it.
TEST_F(RectifiedFlowTest, ALossOfCleanSamplesIsThatOfTheirVelocity) {
  constexpr int64_t kSamples = 4, kElements = 6;
  const Batch batch = MakeBatch(kSamples, kElements, 0.25f);
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  const auto loss_of = [&](const RectifiedFlowConfig& config,
                           const Tensor& prediction, const Tensor& target) {
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    RectifiedFlowObjective(config, /*seed=*/7, kSamples)
        .AddLosses(context, batch, {Variable(prediction), states}, target,
                   kElements);
    CHECK_OK(parallel.status());
    const std::vector<Tape::Loss> losses = tape.TakeLosses();
    return losses.at(0).weight * losses.at(0).value.ToVector<double>()[0];
  };
  // Away from 0, where the loss of the clean sample is bounded.
  const RectifiedFlowConfig velocity = {.logit_mean = 1};
  RectifiedFlowConfig clean = velocity;
  clean.predicts_clean = true;
  const ModelInputs inputs = Noised(velocity, batch, 7, DType::kFloat64);
  const std::vector<double> x = inputs.x.ToVector<double>();
  const std::vector<double> sigmas = inputs.times.ToVector<double>();
  std::vector<double> predicted(kSamples * kElements), u(predicted.size());
  for (size_t i = 0; i < predicted.size(); ++i) {
    predicted[i] = std::sin(static_cast<double>(i));
    u[i] = (x[i] - predicted[i]) / sigmas[i / kElements];
  }
  const Shape shape = {kSamples, 1, kElements};
  const auto tensor = [&](const std::vector<double>& values) {
    return Tensor::FromValues<double>(device_, shape, values);
  };
  EXPECT_NEAR(
      loss_of(clean, tensor(predicted),
              Noised(clean, batch, 7, DType::kFloat64).target.Reshape(shape)),
      loss_of(velocity, tensor(u), inputs.target.Reshape(shape)), 1e-5);
  // The same two predictions, by how far x0 is from the sample's.
  double expected = 0;
  const auto pixels = batch[kPixelsField].ToVector<float>();
  for (size_t i = 0; i < predicted.size(); ++i) {
    expected += std::pow(predicted[i] - pixels[i], 2) /
                static_cast<double>(predicted.size());
  }
  for (RectifiedFlowConfig of_clean : {velocity, clean}) {
    of_clean.compares_clean = true;
    const Tensor target =
        Noised(of_clean, batch, 7, DType::kFloat64).target.Reshape(shape);
    EXPECT_NEAR(
        loss_of(of_clean, tensor(of_clean.predicts_clean ? predicted : u),
                target),
        expected, 1e-6);
  }
}

// A sample of few tokens counts for as much less than one of many, and what
// noise there is in padding for nothing.
TEST_F(RectifiedFlowTest, LossesOfUnlikeSamplesAreMeansOverTheirTokens) {
  constexpr int64_t kTokens = 4, kChannels = 3;
  Batch batch = MakeBatch(2);
  batch.fields[kTokenSetField].values = Tensor::FromValues<float>(
      device_, {2, kTokens, kChannels},
      std::vector<float>(2 * kTokens * kChannels, 0.5f));
  const std::vector<int32_t> counts = {3, 1};
  batch.fields[kVoxelCountField].values =
      Tensor::FromValues<int32_t>(device_, {2}, counts);
  batch.counted = SumOf(batch, kVoxelCountField);
  for (const bool clean : {false, true}) {
    RectifiedFlowConfig config = {.logit_mean = 1, .predicts_clean = clean};
    config.counted_field = kVoxelCountField;
    config.counted_channels = kChannels;
    const RectifiedFlowObjective objective(config, /*seed=*/7, 2);
    EXPECT_EQ(objective.counted_field(), kVoxelCountField);
    const ModelInputs inputs =
        objective.Prepare(batch, kTokenSetField, DType::kFloat64);
    const std::vector<double> x = inputs.x.ToVector<double>();
    const std::vector<double> target = inputs.target.ToVector<double>();
    double expected = 0;
    for (int64_t i = 0; i < 2 * kTokens * kChannels; ++i) {
      const int64_t sample = i / (kTokens * kChannels);
      if (i / kChannels % kTokens >= counts[sample]) {
        EXPECT_EQ(x[i], 0);
        EXPECT_EQ(target[i], 0);
      }
      const double sigma = clean ? inputs.times.ToVector<double>()[sample] : 1;
      expected += target[i] * target[i] / (sigma * sigma) / (4 * kChannels);
    }
    // Data are not written to.
    EXPECT_EQ(batch[kTokenSetField].ToVector<float>().back(), 0.5f);
    SingleWorld world;
    const ProcessGrid grid;
    Communicators communicators(world, grid);
    ParallelContext parallel(device_, grid, communicators);
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    objective.AddLosses(
        context, batch,
        {Variable(Tensor::Zeros(device_, inputs.x.shape(), DType::kFloat64)),
         AxisStates()},
        inputs.target, kTokens * kChannels);
    const std::vector<Tape::Loss> losses = tape.TakeLosses();
    EXPECT_NEAR(losses.at(0).weight * losses.at(0).value.ToVector<double>()[0],
                expected, 1e-5);
  }
}

TEST(ResolveRectifiedFlowTest, DefaultsAndErrorsThatNameTheField) {
  const FieldSpec pictures = {.name = kPixelsField, .shape = {1, 2, 2}};
  const FieldSpec sets = {.name = kTokenSetField, .shape = {5, 3}};
  const auto config = ResolveRectifiedFlow(RectifiedFlow(), pictures);
  CHECK_OK(config.status());
  EXPECT_EQ(config->logit_mean, 0);
  EXPECT_EQ(config->logit_stddev, 1);
  EXPECT_EQ(config->shift, 1);
  EXPECT_EQ(config->condition_drop, 0.1);

  EXPECT_FALSE(config->predicts_clean);
  EXPECT_EQ(config->match_channels, 0);

  const auto message_of = [](const RectifiedFlow& flow,
                             const FieldSpec& samples) {
    return std::string(ResolveRectifiedFlow(flow, samples).status().message());
  };
  RectifiedFlow flow;
  flow.set_match_channels(3);
  CHECK_OK(ResolveRectifiedFlow(flow, sets).status());
  EXPECT_EQ(message_of(flow, pictures),
            "objective.rectified_flow.match_channels: found 3, expected none "
            "where samples are not sets of tokens");
  flow.set_match_channels(4);
  EXPECT_EQ(message_of(flow, sets),
            "objective.rectified_flow.match_channels: found 4, expected at "
            "most the 3 channels of a token");
  const auto message = [&](const RectifiedFlow& wrong) {
    return message_of(wrong, pictures);
  };
  flow = RectifiedFlow();
  flow.set_logit_stddev(0);
  EXPECT_EQ(message(flow),
            "objective.rectified_flow.logit_stddev: found 0, expected more "
            "than 0 and at most 100");
  flow = RectifiedFlow();
  flow.set_logit_mean(std::nan(""));
  EXPECT_EQ(message(flow),
            "objective.rectified_flow.logit_mean: found nan, expected -100 to "
            "100");
  flow = RectifiedFlow();
  flow.set_shift(-1);
  EXPECT_EQ(message(flow),
            "objective.rectified_flow.shift: found -1, expected more than 0 "
            "and at most 1000");
  flow = RectifiedFlow();
  flow.set_condition_drop(1.5);
  EXPECT_EQ(message(flow),
            "objective.rectified_flow.condition_drop: found 1.5, expected 0 "
            "to 1");
}

}  // namespace
}  // namespace trireme
