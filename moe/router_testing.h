// For tests: a router of fp64 on one rank over two samples with padding, and
// the scores that it must have, by formulas.

#ifndef TRIREME_MOE_ROUTER_TESTING_H_
#define TRIREME_MOE_ROUTER_TESTING_H_

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "moe/router.h"
#include "parallel/grid/communicators.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {

inline constexpr int64_t kSamples = 2;
inline constexpr int64_t kTokens = 7;  // of a sample, padding included
inline constexpr int64_t kValid = 6;
inline constexpr int64_t kWidth = 5;
inline constexpr int64_t kExperts = 6;

using Matrix = std::vector<std::vector<double>>;

inline MoeConfig Config() { return {.experts = kExperts, .top_k = 2}; }

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

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline std::vector<double> Times(const Matrix& matrix,
                                 const std::vector<double>& x) {
  std::vector<double> y;
  for (const std::vector<double>& row : matrix) y.push_back(Dot(row, x));
  return y;
}

inline std::vector<double> ScoresOf(const MoeConfig& config,
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

}  // namespace trireme

#endif  // TRIREME_MOE_ROUTER_TESTING_H_
