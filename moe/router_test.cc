// Routes and weights under every option against a formula in fp64, the losses
// and their gradients against differences, and the bias that balances.

#include "moe/router.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/optimizer/optimizer.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

using testing::ElementsAre;

constexpr int64_t kSamples = 2;
constexpr int64_t kTokens = 7;  // of a sample, padding included
constexpr int64_t kValid = 6;
constexpr int64_t kWidth = 5;
constexpr int64_t kExperts = 6;

using Matrix = std::vector<std::vector<double>>;

MoeConfig Config() { return {.experts = kExperts, .top_k = 2}; }

class RouterTest : public GradientCheck {
 protected:
  struct Rank {
    Rank(RouterTest& test, const MoeConfig& config)
        : communicators(factory, grid),
          parallel(test.device_, grid, communicators),
          store(test.device_, DType::kFloat64, /*seed=*/3),
          router(store, "router", kWidth, config) {
      uint64_t seed = 100;
      for (const auto& parameter : store.parameters()) {
        const Shape& shape = parameter->value.shape();
        if (parameter->learns_from_losses()) {
          parameter->value.CopyFrom(test.Random(shape, seed));
        }
        ++seed;
        parameter->grad = Tensor::Zeros(test.device_, shape, DType::kFloat64);
      }
    }
    // Those that learn from losses.
    std::vector<Parameter*> learning() {
      std::vector<Parameter*> all;
      for (const auto& parameter : store.parameters()) {
        if (parameter->learns_from_losses()) all.push_back(parameter.get());
      }
      return all;
    }
    Parameter& Named(const std::string& name) {
      const auto& all = store.parameters();
      const auto found =
          std::find_if(all.begin(), all.end(), [&](const auto& parameter) {
            return parameter->name == "router." + name;
          });
      CHECK(found != all.end()) << name;
      return **found;
    }
    Matrix Values(const std::string& name) {
      const Tensor& value = Named(name).value;
      const std::vector<double> all = value.ToVector<double>();
      const int64_t columns = value.dim(-1);
      Matrix rows;
      for (size_t i = 0; i < all.size(); i += columns) {
        rows.emplace_back(all.begin() + i, all.begin() + i + columns);
      }
      return rows;
    }

    SingleWorld factory;
    ProcessGrid grid;
    Communicators communicators;
    ParallelContext parallel;
    ParameterStore store;
    Router router;
  };

  static MoeTokens Tokens(int64_t global_batch) {
    return {.positions = {0, 1, 2, -1, 3, 4, 5},
            .of_sample = kValid,
            .global_batch = global_batch,
            .step = 4,
            .samples = {10, 11}};
  }

  Routing Forward(Rank& rank, Tape& tape, const Variable& x,
                  int64_t global_batch = 0) {
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    ForwardContext context{tape, rank.parallel};
    Routing routing =
        rank.router.Forward(context, {x, states}, Tokens(global_batch));
    CHECK_OK(rank.parallel.status());
    return routing;
  }

  Tensor Input() { return Random({kSamples, kTokens, kWidth}, 1); }

  // Of each sample's tokens without padding, the values that `f` makes of x.
  std::vector<Matrix> OfTokens(
      const std::function<std::vector<double>(const std::vector<double>&)>& f) {
    const std::vector<double> x = Input().ToVector<double>();
    std::vector<Matrix> samples(kSamples);
    for (int64_t i = 0; i < kSamples * kTokens; ++i) {
      if (Tokens(0).positions[i % kTokens] < 0) continue;
      samples[i / kTokens].push_back(
          f({x.begin() + i * kWidth, x.begin() + (i + 1) * kWidth}));
    }
    return samples;
  }

  std::vector<std::pair<std::string, double>> Losses(Tape& tape) {
    std::vector<std::pair<std::string, double>> losses;
    for (const Tape::Loss& loss : tape.TakeLosses()) {
      losses.emplace_back(loss.name,
                          loss.weight * loss.value.ToVector<double>()[0]);
    }
    return losses;
  }
};

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> Times(const Matrix& matrix, const std::vector<double>& x) {
  std::vector<double> y;
  for (const std::vector<double>& row : matrix) y.push_back(Dot(row, x));
  return y;
}

std::vector<double> ScoresOf(const MoeConfig& config,
                             const std::vector<double>& logits) {
  std::vector<double> scores;
  double sum = 0;
  for (const double logit : logits) {
    const bool sigmoid = config.scores == MoeConfig::Scores::kSigmoid;
    scores.push_back(sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit));
    sum += scores.back();
  }
  if (config.scores == MoeConfig::Scores::kSigmoid) return scores;
  for (double& score : scores) score /= sum;
  return scores;
}

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

// Half the squared coefficient of variation.
double Variation(const std::vector<double>& sums) {
  double mean = 0, variance = 0;
  for (const double x : sums) mean += x / sums.size();
  for (const double x : sums) variance += (x - mean) * (x - mean) / sums.size();
  return variance / (mean * mean) / 2;
}

// Scores of sigmoids are divided by their sum; losses are means over samples.
TEST_F(RouterTest, ImportanceIsTheVariationOfASamplesScores) {
  MoeConfig config = Config();
  config.scores = MoeConfig::Scores::kSigmoid;
  config.importance_weight = 0.5;
  Rank rank(*this, config);
  Tape tape(device_);
  Forward(rank, tape, Variable(Input()), /*global_batch=*/4);
  const Matrix matrix = rank.Values("weight");
  double expected = 0;
  for (const Matrix& sample : OfTokens([&](const std::vector<double>& x) {
         return ScoresOf(config, Times(matrix, x));
       })) {
    std::vector<double> sums(kExperts, 0);
    for (const std::vector<double>& scores : sample) {
      double sum = 0;
      for (const double s : scores) sum += s;
      for (int64_t e = 0; e < kExperts; ++e) sums[e] += scores[e] / sum;
    }
    expected += 0.5 * Variation(sums) / 4;
  }
  const auto losses = Losses(tape);
  ASSERT_EQ(losses.size(), 1u);
  EXPECT_EQ(losses[0].first, "importance_loss");
  EXPECT_NEAR(losses[0].second, expected, 1e-12);
}

// Of all the samples of a microbatch together, which count as so many of the
// batch's. A sample may then keep to a few experts.
TEST_F(RouterTest, LossesByMicrobatchTakeItsSamplesAsOne) {
  MoeConfig config = Config();
  config.balance_weight = 0.25;
  config.balance_over = MoeConfig::BalanceOver::kMicrobatch;
  config.importance_weight = 0.5;
  config.importance_over = MoeConfig::BalanceOver::kMicrobatch;
  Rank rank(*this, config);
  Tape tape(device_);
  const Routing routing =
      Forward(rank, tape, Variable(Input()), /*global_batch=*/4);
  std::vector<double> routes(kExperts, 0), sums(kExperts, 0);
  for (const int32_t expert : routing.experts.ToVector<int32_t>()) {
    if (expert >= 0) ++routes[expert];
  }
  const Matrix matrix = rank.Values("weight");
  for (const Matrix& sample : OfTokens([&](const std::vector<double>& x) {
         return ScoresOf(config, Times(matrix, x));
       })) {
    for (const std::vector<double>& scores : sample) {
      for (int64_t e = 0; e < kExperts; ++e) sums[e] += scores[e];
    }
  }
  constexpr double kCounted = kSamples * kValid;
  double balance = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    balance +=
        kExperts * routes[e] / (kCounted * config.top_k) * sums[e] / kCounted;
  }
  constexpr double kShare = kSamples / 4.0;
  const auto losses = Losses(tape);
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0].first, "balance_loss");
  EXPECT_NEAR(losses[0].second, 0.25 * kShare * balance, 1e-12);
  EXPECT_EQ(losses[1].first, "importance_loss");
  EXPECT_NEAR(losses[1].second, 0.5 * kShare * Variation(sums), 1e-12);
}

TEST_F(RouterTest, LossesMoveTheRouter) {
  using Over = MoeConfig::BalanceOver;
  for (const Over over : {Over::kSample, Over::kMicrobatch, Over::kBatch}) {
    const bool cosine = over == Over::kBatch;
    MoeConfig config = Config();
    config.importance_weight = 0.8;
    if (over == Over::kMicrobatch) {
      config.balance_weight = 0.7;
      config.balance_over = config.importance_over = over;
    }
    config.z_weight = 0.3;
    config.noise = 3;
    if (cosine) {
      config.router = MoeConfig::RouterKind::kCosine;
      config.balance_weight = 0.7;
      config.balance_over = config.importance_over = over;
    }
    Rank rank(*this, config);
    if (cosine) {
      rank.Named("excess_shares").value.CopyFrom(Random({kExperts}, 6));
      // Sums of the step before are not negative.
      const std::vector<double> importance = {-0.5, 0.3, 0.9, -0.2, 0.1, -0.6};
      const std::vector<double> load = {0.7, -0.4, 0.2, -0.1, -0.9, 0.4};
      rank.Named("excess_importance")
          .value.CopyFrom(
              Tensor::FromValues<double>(device_, {kExperts}, importance));
      rank.Named("excess_load")
          .value.CopyFrom(
              Tensor::FromValues<double>(device_, {kExperts}, load));
    }
    const Tensor input = Input();
    const auto losses = [&](Tape& tape, const Variable& x) {
      const Variable outputs[] = {Forward(rank, tape, x, kSamples).weights};
      double sum = 0;
      for (const auto& [name, value] : Losses(tape)) sum += value;
      if (tape.recording()) {
        tape.Backward(outputs, {Tensor()}, Tape::WeightGradients::kImmediate);
      }
      return sum;
    };
    Tape tape(device_);
    const Variable x = tape.Leaf(input.Clone());
    losses(tape, x);
    std::vector<std::pair<Tensor, Tensor>> pairs = {
        {input, tape.TakeGradient(x)}};
    for (const Parameter* parameter : rank.learning()) {
      pairs.emplace_back(parameter->value, parameter->grad);
    }
    for (const auto& [varied, gradient] : pairs) {
      constexpr double kStep = 1e-5;
      const int64_t count = std::min<int64_t>(varied.num_elements(), 64);
      for (int64_t i = 0; i < count; ++i) {
        double* value = varied.data<double>() + i;
        const double saved = *value;
        const auto at = [&](double changed) {
          *value = changed;
          Tape forward(device_, Tape::Mode::kInference);
          return losses(forward, Variable(input));
        };
        const double difference =
            (at(saved + kStep) - at(saved - kStep)) / (2 * kStep);
        *value = saved;
        EXPECT_NEAR(gradient.data<double>()[i], difference, 1e-7) << i;
      }
    }
  }
}

// What a step counts over its whole batch, the next one is balanced by.
TEST_F(RouterTest, BalanceOverTheBatchIsByTheSharesOfTheStepBefore) {
  MoeConfig config = Config();
  config.balance_weight = 0.5;
  config.balance_over = MoeConfig::BalanceOver::kBatch;
  Rank rank(*this, config);
  Parameter& excess = rank.Named("excess_shares");
  std::vector<OwnedParameter> owned(1);
  owned[0] = {.parameter = &excess,
              .range = {0, kExperts},
              .value = excess.value,
              .gradient = excess.grad};
  Optimizer optimizer(rank.parallel, {.weight_decay = 0.5}, 3, {owned});
  const Matrix matrix = rank.Values("weight");
  // Before the first step experts count as used alike.
  std::vector<double> expected(kExperts, 0);
  for (int64_t step = 1; step <= 3; ++step) {
    excess.grad.FillZero();
    EXPECT_EQ(excess.value.ToVector<double>(), expected) << step;
    std::vector<double> counts(kExperts, 0);
    double loss = 0;
    // Two microbatches of as many samples: the batch has 4.
    for (int microbatch = 0; microbatch < 2; ++microbatch) {
      Tape tape(device_);
      const Variable x = tape.Leaf(Input());
      const Routing routing = Forward(rank, tape, x, 2 * kSamples);
      for (const int32_t expert : routing.experts.ToVector<int32_t>()) {
        if (expert >= 0) ++counts[expert];
      }
      loss += Losses(tape)[0].second;
      const Variable outputs[] = {routing.weights};
      tape.Backward(outputs, {Random(routing.weights.value().shape(), 5)},
                    Tape::WeightGradients::kImmediate);
    }
    double of_scores = 0;
    for (const Matrix& sample : OfTokens([&](const std::vector<double>& of) {
           return ScoresOf(config, Times(matrix, of));
         })) {
      for (const std::vector<double>& scores : sample) {
        for (int64_t e = 0; e < kExperts; ++e) {
          of_scores += scores[e] * (1 + expected[e]) / (kSamples * kValid);
        }
      }
    }
    EXPECT_NEAR(loss, 0.5 * of_scores, 1e-12) << step;
    EXPECT_EQ(optimizer.ClipGradients(), 0);
    optimizer.Update(0, step, /*learning_rate=*/7);
    double routes = 0;
    for (const double count : counts) routes += count;
    EXPECT_EQ(routes, 2 * kSamples * kValid * config.top_k);
    for (int64_t e = 0; e < kExperts; ++e) {
      EXPECT_NEAR(excess.value.ToVector<double>()[e],
                  kExperts * counts[e] / routes - 1, 1e-12);
    }
    expected = excess.value.ToVector<double>();
  }
}

// Where a step's sums are those of the step before, the loss over the batch and
// its gradients are what they are where one microbatch is the batch.
TEST_F(RouterTest, ImportanceOverTheBatchIsThatOfOneMicrobatchThatHasItAll) {
  MoeConfig config = Config();
  config.noise = 2;
  config.importance_weight = 0.5;
  config.importance_over = MoeConfig::BalanceOver::kMicrobatch;
  Rank whole(*this, config);
  config.importance_over = MoeConfig::BalanceOver::kBatch;
  Rank parts(*this, config);
  // So many microbatches of the same samples.
  const auto train = [&](Rank& rank, int microbatches) {
    for (const auto& parameter : rank.store.parameters()) {
      parameter->grad.FillZero();
    }
    double loss = 0;
    for (int i = 0; i < microbatches; ++i) {
      Tape tape(device_);
      const Variable x = tape.Leaf(Input());
      const Variable outputs[] = {
          Forward(rank, tape, x, microbatches * kSamples).weights};
      for (const auto& [name, value] : Losses(tape)) loss += value;
      tape.Backward(outputs, {Tensor()}, Tape::WeightGradients::kImmediate);
    }
    return loss;
  };
  const double expected = train(whole, 1);
  ASSERT_GT(expected, 1e-3);
  // Before the first step experts count as used alike.
  EXPECT_EQ(train(parts, 2), 0);
  EXPECT_THAT(parts.Named("weight").grad.ToVector<double>(), testing::Each(0));
  for (const char* name : {"excess_importance", "excess_load"}) {
    Parameter& counted = parts.Named(name);
    counted.value.CopyFrom(counted.grad);
  }
  EXPECT_NEAR(train(parts, 2), expected, 1e-12);
  const std::vector<double> gradient =
      whole.Named("weight").grad.ToVector<double>();
  const std::vector<double> found =
      parts.Named("weight").grad.ToVector<double>();
  for (size_t i = 0; i < gradient.size(); ++i) {
    EXPECT_NEAR(found[i], gradient[i], 1e-12) << i;
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
