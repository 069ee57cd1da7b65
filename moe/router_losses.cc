#include "moe/router_losses.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "moe/route_functions.h"
#include "parallel/layers/functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

// x[t, n], a constant of the compute type, with zeros for padding.
Tensor WithoutPaddingRows(const Tensor& x, const MoeTokens& tokens) {
  if (!tokens.has_padding()) return x;
  const auto local = static_cast<int64_t>(tokens.positions.size());
  std::vector<float> counts(x.dim(0));
  for (int64_t i = 0; i < x.dim(0); ++i) {
    counts[i] = tokens.positions[i % local] == kPaddingPosition ? 0.0F : 1.0F;
  }
  const Tensor factors = Upload<float>(x.device(), {x.dim(0), 1}, counts);
  return ScaleRows(x, x.dtype() == DType::kFloat64
                          ? Cast(factors, DType::kFloat64)
                          : factors);
}

// The states of a sum over tokens.
AxisStates SumStates(AxisStates states) {
  for (const Axis axis : kAllAxes) {
    if (states[axis].kind == Kind::kShard) states[axis] = AxisState::Partial();
  }
  return states;
}

// The groups that share this rank's samples.
std::vector<Communicator*> SharersOf(ForwardContext& context,
                                     const AxisStates& states) {
  std::vector<Communicator*> groups;
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    Communicator& group = context.parallel.communicators().ForAxis(axis);
    if (states[axis].kind == Kind::kShard && group.size() > 1) {
      groups.push_back(&group);
    }
  }
  return groups;
}

// Groups of the microbatch's samples over which a loss sums: each is one, or
// all are.
int64_t GroupsOf(const RouterScores& scores, MoeConfig::BalanceOver over) {
  return over == MoeConfig::BalanceOver::kMicrobatch ? 1 : scores.samples;
}

// E times the share of each expert in the routes of each sample or of the
// microbatch, or in one row those of the step before.
Tensor SharesOf(ForwardContext& context, const MoeConfig& config,
                const RouterScores& scores, const MoeTokens& tokens) {
  const DType dtype = scores.logits.value().dtype();
  if (scores.excess_shares.defined()) {
    const Tensor shares =
        Full(scores.excess_shares.device(), {1, config.experts}, dtype, 1);
    AddInPlace(scores.excess_shares.Reshape({1, config.experts}), shares);
    return shares;
  }
  const int64_t groups = GroupsOf(scores, config.balance_over);
  const Tensor counts =
      CountRoutes(scores.demanded, groups, config.experts, dtype);
  for (Communicator* group : SharersOf(context, scores.states)) {
    group->AllReduce(counts, ReduceOp::kSum, "routes of samples").Wait();
  }
  ScaleInPlace(counts, static_cast<double>(config.experts * groups) /
                           (static_cast<double>(tokens.of_sample) *
                            static_cast<double>(scores.samples) *
                            static_cast<double>(config.top_k)));
  return counts;
}

void AddBalanceLoss(ForwardContext& context, const MoeConfig& config,
                    const RouterScores& scores, const Variable& probabilities,
                    const MoeTokens& tokens) {
  const Tensor shares = SharesOf(context, config, scores, tokens);
  const Shape& shape = scores.logits.value().shape();
  const Variable of_tokens(WithoutPaddingRows(
      RepeatOverTokens(shares, shape.dim(0) / shares.dim(0)).Reshape(shape),
      tokens));
  AddLoss(context,
          {Sum(context.tape, Multiply(context.tape, probabilities, of_tokens)),
           SumStates(scores.states)},
          config.balance_weight / (static_cast<double>(tokens.of_sample) *
                                   static_cast<double>(tokens.global_batch)),
          "balance_loss");
}

void AddZLoss(ForwardContext& context, const MoeConfig& config,
              const RouterScores& scores, const MoeTokens& tokens) {
  Tape& tape = context.tape;
  const Variable z = LogSumExp(tape, scores.logits);
  const Variable counted(WithoutPaddingRows(
      Full(z.value().device(), z.value().shape(), z.value().dtype(), 1),
      tokens));
  AddLoss(context,
          {Sum(tape, Multiply(tape, Multiply(tape, z, z), counted)),
           SumStates(scores.states)},
          config.z_weight / (static_cast<double>(tokens.of_sample) *
                             static_cast<double>(tokens.global_batch)),
          "z_loss");
}

std::vector<double> ValuesOf(const Tensor& x) {
  return Download<double>(
      x.dtype() == DType::kFloat64 ? x : Cast(x, DType::kFloat64));
}

// Half the squared coefficient of variation of sums over a sample's tokens, and
// its slopes.
struct Variation {
  double value = 0;
  std::vector<double> slopes;
};

Variation VariationOf(std::span<const double> sums) {
  const auto n = static_cast<double>(sums.size());
  double sum = 0, squares = 0;
  for (const double x : sums) {
    sum += x;
    squares += x * x;
  }
  Variation variation;
  variation.value = (n * squares / (sum * sum) - 1) / 2;
  for (const double x : sums) {
    variation.slopes.push_back(n * (x - squares / sum) / (sum * sum));
  }
  return variation;
}

double NormalCdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }
double NormalDensity(double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
}

// How a group's sums over tokens are made of rows of x, and what a slope of
// the sums is for them.
struct TokenSums {
  // Adds a token's part.
  std::function<void(int64_t token, std::span<double> sums)> add;
  // Writes its row's slopes.
  std::function<void(int64_t token, std::span<const double> of_sums,
                     std::span<double> slopes)>
      slopes;
  // Of a token, over all experts.
  double expected = 1;
  // Null where the sums of this step are taken.
  Parameter* excess = nullptr;
};

// A loss that is a function of groups' sums.
struct SumsLoss {
  double value = 0;
  std::vector<double> slopes;  // [groups, experts]
};

// Of groups of so many samples each; `sums`, [groups, experts], are whole.
SumsLoss VariationOfGroups(const std::vector<double>& sums, int64_t experts,
                           int64_t members) {
  SumsLoss loss;
  const auto weight = static_cast<double>(members);
  for (size_t first = 0; first < sums.size(); first += experts) {
    const Variation variation =
        VariationOf(std::span(sums).subspan(first, experts));
    loss.value += weight * variation.value;
    for (const double slope : variation.slopes) {
      loss.slopes.push_back(weight * slope);
    }
  }
  return loss;
}

// This rank's part, for its `sums`, [experts], of so many samples, of the
// expansion to first order about the sums of the step before, in which 1 is
// what `unit` makes of an even use. As variation does not depend on the scale
// of the sums, the slopes times those of the step before add nothing.
SumsLoss VariationAbout(const Tensor& excess, const std::vector<double>& sums,
                        double unit, double samples) {
  std::vector<double> before = ValuesOf(excess);
  for (double& x : before) x += 1;
  const Variation variation = VariationOf(before);
  SumsLoss loss{.value = samples * variation.value};
  for (size_t e = 0; e < sums.size(); ++e) {
    loss.slopes.push_back(unit * variation.slopes[e]);
    loss.value += loss.slopes[e] * sums[e];
  }
  return loss;
}

// Adds the mean over samples, over microbatches by their samples, or of the
// batch, of half the squared coefficient of variation of sums over their
// tokens, as a loss of x.
void AddVariation(ForwardContext& context, const MoeConfig& config,
                  const RouterScores& scores, const Variable& x,
                  const MoeTokens& tokens, const TokenSums& parts) {
  Device& device = context.parallel.device();
  const int64_t n = config.experts;
  const int64_t rows = x.value().dim(0);
  const int64_t local = rows / scores.samples;
  const int64_t groups =
      parts.excess != nullptr ? 1 : GroupsOf(scores, config.importance_over);
  // Samples of a group.
  const int64_t members = scores.samples / groups;
  const auto counts = [&](int64_t token) {
    return tokens.positions.empty() ||
           tokens.positions[token % local] != kPaddingPosition;
  };
  std::vector<double> sums(groups * n, 0);
  std::vector<double> slopes(rows * n, 0);
  const auto of_group = [&](std::vector<double>& all, int64_t token) {
    return std::span(all).subspan(token / (local * members) * n, n);
  };
  int64_t counted = 0;
  for (int64_t token = 0; token < rows && !device.dry(); ++token) {
    if (!counts(token)) continue;
    parts.add(token, of_group(sums, token));
    ++counted;
  }
  const std::vector<Communicator*> groups_of_sharers =
      SharersOf(context, scores.states);
  int sharers = 1;
  for (const Communicator* group : groups_of_sharers) sharers *= group->size();
  // So many times what a sample adds to an expert's sum where experts are used
  // alike is 1.
  const double unit = static_cast<double>(n) /
                      (parts.expected * static_cast<double>(tokens.of_sample));
  const auto batch = static_cast<double>(tokens.global_batch);
  SumsLoss loss;
  std::vector<double> excess(n, 0);
  if (parts.excess == nullptr) {
    const Tensor reduced = Upload<double>(device, {groups, n}, sums);
    for (Communicator* group : groups_of_sharers) {
      group->AllReduce(reduced, ReduceOp::kSum, "scores of samples").Wait();
    }
    loss = VariationOfGroups(Download<double>(reduced), n, members);
    loss.value /= sharers;
  } else if (!device.dry()) {
    loss = VariationAbout(parts.excess->value, sums, unit,
                          static_cast<double>(scores.samples) / sharers);
    for (int64_t e = 0; e < n; ++e) {
      excess[e] = (unit * sums[e] - static_cast<double>(counted) /
                                        static_cast<double>(tokens.of_sample)) /
                  batch;
    }
  }
  for (int64_t token = 0; token < rows && !loss.slopes.empty(); ++token) {
    if (!counts(token)) continue;
    parts.slopes(token, of_group(loss.slopes, token),
                 std::span(slopes).subspan(token * n, n));
  }
  const DType dtype = x.value().dtype();
  const auto exact = [&](const Shape& shape, const std::vector<double>& all) {
    const Tensor values = Upload<double>(device, shape, all);
    return dtype == DType::kFloat64 ? values : Cast(values, dtype);
  };
  Variable known =
      KnownLoss(context.tape, x, loss.value, exact({rows, n}, slopes));
  if (parts.excess != nullptr) {
    known = CountSums(context.tape, known, *parts.excess, exact({n}, excess));
  }
  AddLoss(context, {known, SumStates(scores.states)},
          config.importance_weight / batch, "importance_loss");
}

void AddImportance(ForwardContext& context, const MoeConfig& config,
                   const RouterScores& scores, const Variable& probabilities,
                   const MoeTokens& tokens) {
  const int64_t n = config.experts;
  const std::vector<double> p = ValuesOf(probabilities.value());
  AddVariation(context, config, scores, probabilities, tokens,
               {.add =
                    [&](int64_t token, std::span<double> sums) {
                      for (int64_t e = 0; e < n; ++e)
                        sums[e] += p[token * n + e];
                    },
                .slopes =
                    [](int64_t, std::span<const double> of_sums,
                       std::span<double> slopes) {
                      std::copy(of_sums.begin(), of_sums.end(), slopes.begin());
                    },
                .excess = scores.excess_importance});
}

// The chance that a token would choose an expert under other noise: that its
// logit passes the smallest chosen one.
void AddLoad(ForwardContext& context, const MoeConfig& config,
             const RouterScores& scores, const MoeTokens& tokens) {
  const int64_t n = config.experts;
  const double sigma = config.noise / static_cast<double>(n);
  const std::vector<double> noiseless = ValuesOf(scores.noiseless);
  const std::vector<double> noisy = ValuesOf(scores.logits.value());
  const Tensor chosen = TopK(scores.logits.value(), config.top_k);
  const std::vector<int32_t> choices = Download<int32_t>(chosen);
  const auto last = [&](int64_t token) {
    return choices[(token + 1) * config.top_k - 1];
  };
  const auto excess = [&](int64_t token, int64_t e) {
    return (noiseless[token * n + e] - noisy[token * n + last(token)]) / sigma;
  };
  AddVariation(context, config, scores, scores.logits, tokens,
               {.add =
                    [&](int64_t token, std::span<double> sums) {
                      for (int64_t e = 0; e < n; ++e) {
                        sums[e] += NormalCdf(excess(token, e));
                      }
                    },
                .slopes =
                    [&](int64_t token, std::span<const double> of_sums,
                        std::span<double> slopes) {
                      for (int64_t e = 0; e < n; ++e) {
                        const double slope = of_sums[e] *
                                             NormalDensity(excess(token, e)) /
                                             sigma;
                        slopes[e] += slope;
                        slopes[last(token)] -= slope;
                      }
                    },
                .expected = static_cast<double>(config.top_k),
                .excess = scores.excess_load});
}

}  // namespace

void AddRouterLosses(ForwardContext& context, const MoeConfig& config,
                     const RouterScores& scores, const MoeTokens& tokens) {
  if (tokens.global_batch == 0) return;
  Variable probabilities;
  if (config.balance_weight > 0 || config.importance_weight > 0) {
    probabilities = Softmax(context.tape, scores.log_scores);
  }
  if (config.balance_weight > 0) {
    AddBalanceLoss(context, config, scores, probabilities, tokens);
  }
  if (config.importance_weight > 0) {
    AddImportance(context, config, scores, probabilities, tokens);
    if (config.noise > 0) AddLoad(context, config, scores, tokens);
  }
  if (config.z_weight > 0) AddZLoss(context, config, scores, tokens);
}

}  // namespace trireme
