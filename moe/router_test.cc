// Routes and weights under every option against a formula in fp64, and the bias
// that balances.

#include "moe/router.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "moe/router_testing.h"
#include "parallel/optimizer/optimizer.h"

namespace trireme {
namespace {

using testing::ElementsAre;

TEST_F(RouterTest, WeightsAreTheScoresOfTheChosen) {
  for (const auto scores :
       {MoeConfig::Scores::kSoftmax, MoeConfig::Scores::kSigmoid}) {
    for (const bool normalize : {false, true}) {
      for (const bool grouped : {false, true}) {
        MoeConfig config = Config();
        config.scores = scores;
        config.normalize = normalize;
        if (grouped) {
          config.groups = 3;
          config.top_groups = 1;
        }
        Rank rank(*this, config);
        Tape tape(device_);
        const Routing routing = Forward(rank, tape, Variable(Input()));
        const auto weights = routing.weights.value().ToVector<double>();
        const auto experts = routing.experts.ToVector<int32_t>();
        const Matrix matrix = rank.Values("weight");
        size_t route = 0;
        for (const Matrix& sample : OfTokens([&](const auto& x) {
               return ScoresOf(config, Times(matrix, x));
             })) {
          for (const std::vector<double>& s : sample) {
            while (experts[route] < 0) route += config.top_k;
            // The best pair; in one group of two, that pair.
            size_t best = 0, second = 1;
            double most = -1;
            for (size_t a = 0; a < s.size(); ++a) {
              for (size_t b = 0; b < s.size(); ++b) {
                if (a == b || s[a] < s[b] || s[a] + s[b] <= most) continue;
                if (grouped && a / 2 != b / 2) continue;
                best = a, second = b, most = s[a] + s[b];
              }
            }
            EXPECT_EQ(experts[route], best);
            EXPECT_EQ(experts[route + 1], second);
            const double sum = normalize ? s[best] + s[second] : 1;
            EXPECT_NEAR(weights[route], s[best] / sum, 1e-12);
            EXPECT_NEAR(weights[route + 1], s[second] / sum, 1e-12);
            route += 2;
          }
        }
      }
    }
  }
}

TEST_F(RouterTest, CosinesComeFromLengthsOfOne) {
  MoeConfig config = Config();
  config.router = MoeConfig::RouterKind::kCosine;
  Rank rank(*this, config);
  const Matrix projection = rank.Values("projection.weight");
  const Matrix vectors = rank.Values("vectors");
  const double scale =
      std::min(2 * std::exp(rank.Values("temperature")[0][0]), 100.0);
  Tape tape(device_);
  const Routing routing = Forward(rank, tape, Variable(Input()));
  const auto weights = routing.weights.value().ToVector<double>();
  const auto experts = routing.experts.ToVector<int32_t>();
  const auto of_tokens = OfTokens([&](const std::vector<double>& x) {
    const std::vector<double> h = Times(projection, x);
    std::vector<double> logits;
    for (const std::vector<double>& vector : vectors) {
      logits.push_back(scale * Dot(h, vector) /
                       std::sqrt(Dot(h, h) * Dot(vector, vector)));
    }
    return ScoresOf(config, logits);
  });
  for (int64_t token : {0, 2, 5}) {
    // Position 3 is the fifth of the rank's tokens.
    const int64_t at = token < 3 ? token : token + 1;
    for (int64_t j = 0; j < 2; ++j) {
      const int32_t expert = experts[2 * at + j];
      EXPECT_NEAR(weights[2 * at + j], of_tokens[0][token][expert], 1e-10);
    }
  }
}

TEST_F(RouterTest, ExpertsOverCapacityDropRoutesAndKeepTheOthersWeights) {
  MoeConfig config = Config();
  Rank all(*this, config);
  config.capacity_factor = 0.5;  // one token of each sample for each expert
  Rank few(*this, config);
  Tape tape(device_);
  const Routing whole = Forward(all, tape, Variable(Input()));
  const Routing dropped = Forward(few, tape, Variable(Input()));
  const auto weights = whole.weights.value().ToVector<double>();
  const auto kept = dropped.weights.value().ToVector<double>();
  const auto before = whole.experts.ToVector<int32_t>();
  const auto after = dropped.experts.ToVector<int32_t>();
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    std::map<int32_t, int> taken;
    for (int64_t j = 0; j < 2; ++j) {
      for (int64_t t = 0; t < kTokens; ++t) {
        const int64_t route = (sample * kTokens + t) * 2 + j;
        if (before[route] < 0) continue;
        EXPECT_EQ(weights[route], kept[route]);
        EXPECT_EQ(after[route],
                  taken[before[route]]++ < 1 ? before[route] : -1);
      }
    }
  }
  EXPECT_EQ(dropped.most_of_expert, kSamples);
}

TEST_F(RouterTest, ACapacityOfLessThanATokenIsRefused) {
  MoeConfig config = Config();
  config.capacity_factor = 0.4;  // of the 2 tokens that an even share is
  Rank rank(*this, config);
  Tape tape(device_, Tape::Mode::kInference);
  ForwardContext context{tape, rank.parallel};
  AxisStates states;
  states[Axis::kData] = AxisState::Shard(0);
  rank.router.Forward(context, {Variable(Input()), states}, Tokens(0));
  EXPECT_EQ(rank.parallel.status().message(),
            "'router' with moe.capacity_factor 0.4: found 0.8 tokens for each "
            "of 6 experts, of samples of 6 tokens with 2 experts each, "
            "expected 1 at least");
}

TEST_F(RouterTest, ExpertsChooseWithinASample) {
  MoeConfig config = Config();
  config.choice = MoeConfig::Choice::kExperts;
  config.capacity_factor = 1;  // 2 tokens of each sample
  Rank rank(*this, config);
  Tape tape(device_);
  const Routing routing = Forward(rank, tape, Variable(Input()));
  const auto experts = routing.experts.ToVector<int32_t>();
  const auto weights = routing.weights.value().ToVector<double>();
  const Matrix matrix = rank.Values("weight");
  const auto scores = OfTokens([&](const std::vector<double>& x) {
    return ScoresOf(config, Times(matrix, x));
  });
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    for (int64_t e = 0; e < kExperts; ++e) {
      for (int64_t t = 0, valid = 0; t < kTokens; ++t) {
        const int64_t route = (sample * kTokens + t) * kExperts + e;
        if (Tokens(0).positions[t] < 0) {
          EXPECT_EQ(experts[route], -1);
          continue;
        }
        int64_t better = 0;
        for (const std::vector<double>& other : scores[sample]) {
          better += other[e] > scores[sample][valid][e] ? 1 : 0;
        }
        EXPECT_EQ(experts[route], better < 2 ? e : -1);
        EXPECT_NEAR(weights[route], scores[sample][valid][e], 1e-12);
        ++valid;
      }
    }
  }
}

TEST_F(RouterTest, WeightsGradientsAreThoseOfDifferences) {
  for (const auto& change : std::vector<std::function<void(MoeConfig&)>>{
           [](MoeConfig& c) { c.scores = MoeConfig::Scores::kSigmoid; },
           [](MoeConfig& c) {
             c.scores = MoeConfig::Scores::kSigmoid;
             c.normalize = true;
           },
           [](MoeConfig& c) { c.router = MoeConfig::RouterKind::kCosine; },
           [](MoeConfig& c) {
             c.choice = MoeConfig::Choice::kExperts;
             c.capacity_factor = 1;
           }}) {
    MoeConfig config = Config();
    change(config);
    Rank rank(*this, config);
    Check(
        [&](Tape& tape, const std::vector<Variable>& inputs) {
          return Forward(rank, tape, inputs[0]).weights;
        },
        {Input()}, rank.learning());
  }
}

// A token's noise is its own: of its sample, position and step.
TEST_F(RouterTest, NoiseIsThereInTrainingOnlyAndKeyedByToken) {
  MoeConfig config = Config();
  Rank quiet(*this, config);
  config.noise = 2;
  Rank noisy(*this, config);
  const auto weights = [&](Rank& rank, int64_t global_batch) {
    Tape tape(device_);
    return Forward(rank, tape, Variable(Input()), global_batch)
        .weights.value()
        .ToVector<double>();
  };
  EXPECT_EQ(weights(noisy, 0), weights(quiet, 0));
  EXPECT_NE(weights(noisy, kSamples), weights(quiet, kSamples));
  EXPECT_EQ(weights(noisy, kSamples), weights(noisy, kSamples));
}

// Experts with more routes than the mean lose, those with fewer win, and the
// bias is in no norm.
TEST_F(RouterTest, BiasStepsAgainstWhatIsAboveTheMean) {
  MoeConfig config = {.experts = 3, .top_k = 1, .bias_step = 0.25};
  Rank rank(*this, config);
  // All scores are equal: every token goes to expert 0.
  for (Parameter* parameter : rank.learning()) parameter->value.FillZero();
  Parameter* bias = nullptr;
  for (const auto& parameter : rank.store.parameters()) {
    if (parameter->sign_step > 0) bias = parameter.get();
  }
  ASSERT_NE(bias, nullptr);
  std::vector<OwnedParameter> owned(1);
  owned[0] = {.parameter = bias,
              .range = {0, 3},
              .value = bias->value,
              .gradient = bias->grad};
  Optimizer optimizer(rank.parallel, {.weight_decay = 0.5}, 3, {owned});
  const auto step = [&](int64_t number) {
    bias->grad.FillZero();
    Tape tape(device_);
    const Variable x = tape.Leaf(Input());
    const Variable outputs[] = {Forward(rank, tape, x, kSamples).weights};
    const Tensor slope = Random(outputs[0].value().shape(), 5);
    tape.Backward(outputs, {slope}, Tape::WeightGradients::kImmediate);
    EXPECT_EQ(optimizer.ClipGradients(), 0);
    optimizer.Update(0, number, /*learning_rate=*/7);
  };
  step(1);
  EXPECT_THAT(bias->grad.ToVector<double>(), ElementsAre(24, -12, -12));
  EXPECT_THAT(bias->value.ToVector<double>(), ElementsAre(-0.25, 0.25, 0.25));
  // Now every token goes to expert 1.
  step(2);
  EXPECT_THAT(bias->value.ToVector<double>(), ElementsAre(0, 0, 0.5));
}

}  // namespace
}  // namespace trireme
