// A mixture of experts on one rank against its formula in fp64: results,
// losses, gradients and what is kept for backward.

#include "moe/moe_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int64_t kSamples = 2;
constexpr int64_t kTokens = 5;  // of a sample, padding included
constexpr int64_t kValid = 4;
constexpr int64_t kWidth = 6;

MoeConfig Config(MoeConfig::ExpertKind kind, int64_t experts, int64_t top_k) {
  return {.experts = experts, .top_k = top_k, .expert_hidden = 4, .kind = kind};
}

class MoeLayerTest : public GradientCheck {
 protected:
  // A layer whose parameters are all random.
  struct Rank {
    Rank(MoeLayerTest& test, const MoeConfig& config)
        : communicators(factory, grid),
          parallel(test.device_, grid, communicators),
          store(test.device_, DType::kFloat64, /*seed=*/0),
          layer(store, grid, "moe", kWidth, config) {
      uint64_t seed = 100;
      for (const auto& parameter : store.parameters()) {
        const Shape& shape = parameter->value.shape();
        parameter->value.CopyFrom(test.Random(shape, seed++));
        parameter->grad = Tensor::Zeros(test.device_, shape, DType::kFloat64);
      }
    }

    std::vector<Parameter*> parameters() {
      std::vector<Parameter*> all;
      for (const auto& parameter : store.parameters()) {
        all.push_back(parameter.get());
      }
      return all;
    }
    Parameter& Named(const std::string& name) {
      const auto& all = store.parameters();
      const auto found =
          std::find_if(all.begin(), all.end(), [&](const auto& parameter) {
            return parameter->name == "moe." + name;
          });
      CHECK(found != all.end()) << name;
      return **found;
    }
    std::vector<double> Values(const std::string& name) {
      return Named(name).value.ToVector<double>();
    }

    SingleWorld factory;
    ProcessGrid grid;
    Communicators communicators;
    ParallelContext parallel;
    ParameterStore store;
    MoeLayer layer;
  };

  static AxisStates States() {
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    return states;
  }

  Variable Forward(Rank& rank, Tape& tape, const Variable& x,
                   int64_t global_batch = 0) {
    ForwardContext context{tape, rank.parallel};
    const ShardedVariable y =
        rank.layer.Forward(context, {x, States()},
                           {.positions = {0, 1, 2, 3, -1},  // kValid of kTokens
                            .of_sample = kValid,
                            .global_batch = global_batch});
    CHECK_OK(rank.parallel.status());
    return y.variable;
  }

  Tensor Input() { return Random({kSamples, kTokens, kWidth}, 1); }
};

// values[row, ..columns] · x [+ bias[row]].
std::vector<double> Times(const std::vector<double>& matrix, size_t first_row,
                          size_t rows, const std::vector<double>& x,
                          const std::vector<double>& bias = {}) {
  std::vector<double> y(rows, 0);
  for (size_t row = 0; row < rows; ++row) {
    if (!bias.empty()) y[row] = bias[first_row + row];
    for (size_t i = 0; i < x.size(); ++i) {
      y[row] += matrix[(first_row + row) * x.size() + i] * x[i];
    }
  }
  return y;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

double GeluTanh(double x) {
  return x / 2 *
         (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

std::vector<double> Activated(MoeConfig::ExpertKind kind,
                              const std::vector<double>& x) {
  std::vector<double> y;
  if (kind == MoeConfig::ExpertKind::kGelu) {
    for (const double value : x) y.push_back(GeluTanh(value));
    return y;
  }
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) y.push_back(Silu(x[i]) * x[half + i]);
  return y;
}

// The experts of largest logit, ties to the lowest.
std::vector<size_t> Chosen(const std::vector<double>& logits, int64_t k) {
  std::vector<size_t> experts(logits.size());
  std::iota(experts.begin(), experts.end(), size_t{0});
  std::stable_sort(experts.begin(), experts.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  experts.resize(k);
  return experts;
}

std::vector<double> Softmax(const std::vector<double>& logits) {
  std::vector<double> y;
  double sum = 0;
  for (const double logit : logits) {
    y.push_back(std::exp(logit));
    sum += y.back();
  }
  for (double& value : y) value /= sum;
  return y;
}

TEST_F(MoeLayerTest, TokensGetTheWeightedResultsOfTheirExperts) {
  std::vector<MoeConfig> configs;
  for (const auto kind :
       {MoeConfig::ExpertKind::kSwiGlu, MoeConfig::ExpertKind::kGelu}) {
    configs.push_back(Config(kind, 5, 2));
    configs.push_back(Config(kind, 3, 3));
    configs.push_back(Config(kind, 1, 1));
    configs.push_back(Config(kind, 5, 2));
    configs.back().normalize = true;
    configs.back().shared_hidden = 3;
    configs.push_back(configs.back());
    configs.back().bias = true;
  }
  for (const MoeConfig& config : configs) {
    SCOPED_TRACE(testing::Message()
                 << config.top_k << " of " << config.experts << ", kind "
                 << static_cast<int>(config.kind));
    Rank rank(*this, config);
    const auto biases = [&](const std::string& name) {
      return config.bias ? rank.Values(name + ".bias") : std::vector<double>();
    };
    const Tensor input = Input();
    Tape tape(device_);
    const std::vector<double> y =
        Forward(rank, tape, Variable(input)).value().ToVector<double>();
    const std::vector<double> router = rank.Values("router.weight");
    const std::vector<double> in = rank.Values("experts.in.weight");
    const std::vector<double> out = rank.Values("experts.out.weight");
    const std::vector<double> all = input.ToVector<double>();
    const size_t hidden = config.expert_hidden;
    const size_t inner =
        config.kind == MoeConfig::ExpertKind::kSwiGlu ? 2 * hidden : hidden;
    for (int64_t token = 0; token < kSamples * kTokens; ++token) {
      const std::vector<double> x(all.begin() + token * kWidth,
                                  all.begin() + (token + 1) * kWidth);
      const std::vector<double> logits = Times(router, 0, config.experts, x);
      const std::vector<double> scores = Softmax(logits);
      std::vector<double> expected(kWidth, 0);
      const auto add = [&](const std::vector<double>& values, double weight) {
        for (int64_t i = 0; i < kWidth; ++i) expected[i] += weight * values[i];
      };
      const std::vector<size_t> chosen = Chosen(logits, config.top_k);
      double sum = 1;
      if (config.normalize) {
        sum = 0;
        for (const size_t expert : chosen) sum += scores[expert];
      }
      // Padding is not routed.
      if (token % kTokens < kValid) {
        for (const size_t expert : chosen) {
          const std::vector<double> h = Activated(
              config.kind,
              Times(in, expert * inner, inner, x, biases("experts.in")));
          add(Times(out, expert * kWidth, kWidth, h, biases("experts.out")),
              scores[expert] / sum);
        }
      }
      if (config.shared_hidden > 0) {
        const size_t shared = config.shared_hidden;
        const std::vector<double> h =
            Activated(MoeConfig::ExpertKind::kSwiGlu,
                      Times(rank.Values("shared.in.weight"), 0, 2 * shared, x,
                            biases("shared.in")));
        add(Times(rank.Values("shared.out.weight"), 0, kWidth, h,
                  biases("shared.out")),
            1);
      }
      for (int64_t i = 0; i < kWidth; ++i) {
        EXPECT_NEAR(y[token * kWidth + i], expected[i], 1e-12)
            << "token " << token;
      }
    }
  }
}

TEST_F(MoeLayerTest, GradientsAreThoseOfDifferences) {
  for (const bool normalize : {false, true}) {
    // More experts than routes: some get no token, and a gradient of zero.
    MoeConfig config = Config(MoeConfig::ExpertKind::kSwiGlu, 6, 2);
    config.normalize = normalize;
    config.shared_hidden = 3;
    if (normalize) config.kind = MoeConfig::ExpertKind::kGelu;
    for (const bool bias : {false, true}) {
      config.bias = bias;
      Rank rank(*this, config);
      Check(
          [&](Tape& tape, const std::vector<Variable>& inputs) {
            return Forward(rank, tape, inputs[0]);
          },
          {Input()}, rank.parameters());
    }
  }
}

// What a dense SwiGLU of k experts' width keeps: its input, the first product
// and the second's input. The rows of tokens that go to several experts are not
// kept, nor what the experts returned.
TEST_F(MoeLayerTest, KeepsWhatADenseLayerOfTheActiveWidthKeeps) {
  constexpr int64_t kManyTokens = 512;
  const MoeConfig config = {.experts = 4, .top_k = 2, .expert_hidden = 64};
  const auto kept = [&](Keep keep) {
    SingleWorld world;
    const ProcessGrid grid;
    Communicators communicators(world, grid);
    ParallelContext parallel(device_, grid, communicators);
    ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
    const MoeLayer layer(store, grid, "moe", kWidth, config, keep);
    const Tensor input = Random({1, kManyTokens, kWidth}, 1);
    const int64_t before = device_.Statistics().current_bytes;
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    const Variable x = tape.Leaf(input);
    layer.Forward(context, {x, States()}, {.of_sample = kManyTokens});
    return device_.Statistics().current_bytes - before;
  };
  const int64_t element = kManyTokens * sizeof(double);
  const int64_t inner = config.top_k * config.expert_hidden * element;
  // What the router keeps beside: logits and scores of all experts, and for
  // each of the k choices its weight, its place and where it came from.
  const int64_t routing = (3 * config.experts + 6 * config.top_k) * element;
  EXPECT_GE(kept(Keep::kValue), 3 * inner);
  EXPECT_LE(kept(Keep::kValue), 3 * inner + routing);
  EXPECT_LE(kept(Keep::kRecipe), 2 * inner + routing);
}

// What a picture of routing shows adds up to what was routed, and padding to
// none of it.
TEST_F(MoeLayerTest, RoutesAreCountedByTheKindsOfTheirSamples) {
  Rank rank(*this, Config(MoeConfig::ExpertKind::kGelu, 4, 2));
  const auto counts = [&](const std::vector<int32_t>& kinds) {
    Tape tape(device_, Tape::Mode::kInference);
    ForwardContext context{tape, rank.parallel};
    rank.layer.Forward(context, {Variable(Input()), States()},
                       {.of_sample = kTokens,
                        .global_batch = kSamples,
                        .samples = {0, 1},
                        .kinds = kinds});
    return tape.TakeCounts().at(0).values.ToVector<double>();
  };
  const std::vector<double> all = counts({});
  ASSERT_EQ(all.size(), 4u);
  const std::vector<double> apart = counts({3, kRouteKinds - 1});
  const std::vector<double> first = counts({3, kNoRouteKind});
  ASSERT_EQ(apart.size(), static_cast<size_t>(4 * kRouteKinds));
  ASSERT_EQ(first.size(), apart.size());
  double of_first = 0;
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(apart[3 * 4 + i] + apart[(kRouteKinds - 1) * 4 + i], all[i]);
    EXPECT_EQ(first[3 * 4 + i], apart[3 * 4 + i]);
    of_first += first[3 * 4 + i];
  }
  EXPECT_EQ(of_first, 2 * kTokens);
  EXPECT_EQ(std::accumulate(first.begin(), first.end(), 0.0), of_first);
}

// With equal scores the balance loss is its weight, whoever is chosen, and the
// z-loss the square of log E; a loss counts where it belongs: over the tokens
// of the job's batch.
TEST_F(MoeLayerTest, LossesAreMeansOverTheBatch) {
  MoeConfig config = Config(MoeConfig::ExpertKind::kGelu, 4, 2);
  config.balance_weight = 0.25;
  config.z_weight = 0.5;
  Rank rank(*this, config);
  rank.Named("router.weight").value.FillZero();
  Tape tape(device_);
  Forward(rank, tape, Variable(Input()), /*global_batch=*/2 * kSamples);
  std::vector<std::pair<std::string, double>> found;
  for (const Tape::Loss& loss : tape.TakeLosses()) {
    found.emplace_back(loss.name,
                       loss.weight * loss.value.ToVector<double>()[0]);
  }
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, "balance_loss");
  // Half the batch is here.
  EXPECT_NEAR(found[0].second, 0.25 / 2, 1e-12);
  EXPECT_EQ(found[1].first, "z_loss");
  EXPECT_NEAR(found[1].second, 0.5 / 2 * std::pow(std::log(4), 2), 1e-12);
}

// The losses' gradients, by differences of the losses themselves.
TEST_F(MoeLayerTest, LossesMoveTheRouter) {
  MoeConfig config = Config(MoeConfig::ExpertKind::kGelu, 4, 2);
  config.balance_weight = 0.7;
  config.z_weight = 0.3;
  Rank rank(*this, config);
  const Tensor input = Input();
  const auto losses = [&](Tape& tape, const Variable& x) {
    const Variable outputs[] = {Forward(rank, tape, x, kSamples)};
    double sum = 0;
    for (const Tape::Loss& loss : tape.TakeLosses()) {
      sum += loss.weight * loss.value.ToVector<double>()[0];
    }
    if (tape.recording()) {
      tape.Backward(outputs, {Tensor()}, Tape::WeightGradients::kImmediate);
    }
    return sum;
  };
  Tape tape(device_);
  const Variable x = tape.Leaf(input.Clone());
  losses(tape, x);
  Parameter& router = rank.Named("router.weight");
  const std::vector<std::pair<Tensor, Tensor>> pairs = {
      {router.value, router.grad}, {input, tape.TakeGradient(x)}};
  for (const auto& [varied, gradient] : pairs) {
    constexpr double kStep = 1e-5;
    for (int64_t i = 0; i < varied.num_elements(); ++i) {
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

}  // namespace
}  // namespace trireme
