// Which experts the tokens of a sample go to where more than each token's own
// largest scores decides: groups, biases, capacities and experts that choose.
// Plain values, and the same on every rank that has the same scores.
//
// Ties go to the lower expert and to the earlier token; NaN counts as minus
// infinity. Scores are [tokens, experts] in the order of the tokens' positions,
// without padding; choices are int32 [tokens, k], −1 where a route is dropped.

#ifndef TRIREME_MOE_EXPERT_CHOICE_H_
#define TRIREME_MOE_EXPERT_CHOICE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "moe/moe_config.h"

namespace trireme {

// Of a sample of so many tokens the routes that an expert may take:
// capacity_factor · top_k · tokens / experts.
double ExpertShare(const MoeConfig& config, int64_t tokens);

// As many whole ones: rounded up, and at most the tokens. CHECKs that there is
// a capacity.
int64_t ExpertCapacity(const MoeConfig& config, int64_t tokens);

// The top_k experts of each token of the largest score + bias, largest first.
// `bias`: of each expert, or empty. Of groups a token uses those whose best
// top_k / top_groups such sums are largest together.
std::vector<int32_t> ChooseExperts(const MoeConfig& config,
                                   std::span<const double> scores,
                                   std::span<const double> bias);

// Drops what is more than `capacity` for an expert. All tokens' first choices
// take their places before second ones; among them the order is that of the
// tokens or of their largest scores.
void DropOverCapacity(const MoeConfig& config, std::span<const double> scores,
                      int64_t capacity, std::span<int32_t> choices);

// [tokens, experts]: e in column e where expert e takes the token as one of its
// `capacity` of the largest scores, else −1.
std::vector<int32_t> ChooseTokens(const MoeConfig& config,
                                  std::span<const double> scores,
                                  int64_t capacity);

}  // namespace trireme

#endif  // TRIREME_MOE_EXPERT_CHOICE_H_
