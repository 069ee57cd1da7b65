#include "moe/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/core/log.h"

namespace trireme {
namespace {

using Drop = MoeConfig::Drop;

double Ordered(double score) {
  return std::isnan(score) ? -std::numeric_limits<double>::infinity() : score;
}

// The positions of the `count` largest values, largest first.
std::vector<int32_t> Largest(std::span<const double> values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](int32_t a, int32_t b) {
                      return values[a] != values[b] ? values[a] > values[b]
                                                    : a < b;
                    });
  order.resize(count);
  return order;
}

// Experts of groups that a token does not use lose to all others.
void LeaveOutGroups(const MoeConfig& config, std::vector<double>& values) {
  const int64_t size = config.experts / config.groups;
  const int64_t best = config.top_k / config.top_groups;
  std::vector<double> of_groups(config.groups, 0);
  for (int64_t g = 0; g < config.groups; ++g) {
    const std::span group(values.data() + g * size, size);
    for (const int32_t e : Largest(group, best)) of_groups[g] += group[e];
  }
  std::vector<bool> used(config.groups, false);
  for (const int32_t g : Largest(of_groups, config.top_groups)) used[g] = true;
  for (int64_t e = 0; e < config.experts; ++e) {
    if (!used[e / size]) values[e] = -std::numeric_limits<double>::infinity();
  }
}

int64_t TokensIn(const MoeConfig& config, std::span<const double> scores) {
  return static_cast<int64_t>(scores.size()) / config.experts;
}

}  // namespace

double ExpertShare(const MoeConfig& config, int64_t tokens) {
  return config.capacity_factor * static_cast<double>(config.top_k * tokens) /
         static_cast<double>(config.experts);
}

int64_t ExpertCapacity(const MoeConfig& config, int64_t tokens) {
  CHECK(config.capacity_factor > 0);
  // A factor like 1.1 is a little more than it says, and may not cost a whole
  // slot: 10 slots are 11 then.
  constexpr double kRounding = 1e-12;
  return std::min(tokens, static_cast<int64_t>(std::ceil(
                              ExpertShare(config, tokens) * (1 - kRounding))));
}

std::vector<int32_t> ChooseExperts(const MoeConfig& config,
                                   std::span<const double> scores,
                                   std::span<const double> bias) {
  std::vector<int32_t> choices;
  choices.reserve(TokensIn(config, scores) * config.top_k);
  std::vector<double> values(config.experts);
  for (int64_t t = 0; t < TokensIn(config, scores); ++t) {
    for (int64_t e = 0; e < config.experts; ++e) {
      values[e] = Ordered(scores[t * config.experts + e]);
      if (!bias.empty()) values[e] += bias[e];
    }
    if (config.top_groups < config.groups) LeaveOutGroups(config, values);
    const std::vector<int32_t> chosen = Largest(values, config.top_k);
    choices.insert(choices.end(), chosen.begin(), chosen.end());
  }
  return choices;
}

void DropOverCapacity(const MoeConfig& config, std::span<const double> scores,
                      int64_t capacity, std::span<int32_t> choices) {
  const int64_t tokens = TokensIn(config, scores);
  std::vector<int32_t> order(tokens);
  std::iota(order.begin(), order.end(), 0);
  if (config.drop == Drop::kByScore) {
    std::vector<double> best(tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      best[t] = -std::numeric_limits<double>::infinity();
      for (int64_t e = 0; e < config.experts; ++e) {
        best[t] = std::max(best[t], Ordered(scores[t * config.experts + e]));
      }
    }
    order = Largest(best, tokens);
  }
  std::vector<int64_t> taken(config.experts, 0);
  for (int64_t j = 0; j < config.top_k; ++j) {
    for (const int32_t t : order) {
      int32_t& choice = choices[t * config.top_k + j];
      if (taken[choice]++ >= capacity) choice = -1;
    }
  }
}

std::vector<int32_t> ChooseTokens(const MoeConfig& config,
                                  std::span<const double> scores,
                                  int64_t capacity) {
  const int64_t tokens = TokensIn(config, scores);
  std::vector<int32_t> choices(tokens * config.experts, -1);
  std::vector<double> of_expert(tokens);
  for (int64_t e = 0; e < config.experts; ++e) {
    for (int64_t t = 0; t < tokens; ++t) {
      of_expert[t] = Ordered(scores[t * config.experts + e]);
    }
    for (const int32_t t : Largest(of_expert, capacity)) {
      choices[t * config.experts + e] = static_cast<int32_t>(e);
    }
  }
  return choices;
}

}  // namespace trireme
