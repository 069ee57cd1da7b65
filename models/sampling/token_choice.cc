#include "models/sampling/token_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

struct Candidate {
  int32_t token = 0;
  double logit = 0;
  double weight = 0;  // of its probability
};

// The likeliest first.
std::vector<Candidate> Ranked(std::span<const float> logits,
                              std::span<const TokenInterval> allowed) {
  std::vector<Candidate> candidates;
  for (const TokenInterval& interval : allowed) {
    for (int32_t token = interval.begin; token < interval.end; ++token) {
      const double logit = logits[token];
      candidates.push_back(
          {.token = token,
           .logit = std::isnan(logit) ? -std::numeric_limits<double>::infinity()
                                      : logit});
    }
  }
  std::stable_sort(
      candidates.begin(), candidates.end(),
      [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  return candidates;
}

}  // namespace

int32_t ChooseToken(const TokenChoice& choice, std::span<const float> logits,
                    std::span<const TokenInterval> allowed, double uniform) {
  std::vector<Candidate> candidates = Ranked(logits, allowed);
  CHECK(!candidates.empty());
  const double highest = candidates.front().logit;
  if (choice.temperature == 0 || !std::isfinite(highest)) {
    return candidates.front().token;
  }
  if (choice.top_k > 0 &&
      choice.top_k < static_cast<int64_t>(candidates.size())) {
    candidates.resize(choice.top_k);
  }
  double sum = 0;
  for (Candidate& candidate : candidates) {
    candidate.weight =
        std::exp((candidate.logit - highest) / choice.temperature);
    sum += candidate.weight;
  }
  double kept = 0;
  size_t count = 0;
  while (count < candidates.size() &&
         (count == 0 || kept < choice.top_p * sum)) {
    kept += candidates[count++].weight;
  }
  double rest = uniform * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    rest -= candidates[i].weight;
    if (rest < 0) return candidates[i].token;
  }
  return candidates[count - 1].token;
}

}  // namespace trireme
