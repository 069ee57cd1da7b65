// The router's losses and their gradients, against formulas in fp64 and
// differences.

#include <algorithm>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "moe/router_testing.h"
#include "parallel/optimizer/optimizer.h"

namespace trireme {
namespace {

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

}  // namespace
}  // namespace trireme
