// A token gets the experts that its scores, its groups and its expert's
// capacity give it, whatever ties there are.

#include "moe/expert_choice.h"

#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using testing::ElementsAre;

// Four tokens, three experts. Most want expert 0.
const std::vector<double> kScores = {0.6, 0.3, 0.1,  //
                                     0.9, 0.1, 0.0,  //
                                     0.5, 0.1, 0.4,  //
                                     0.2, 0.7, 0.1};

TEST(ExpertChoiceTest, TokensTakeTheLargestScoresAndTiesTheLowestExpert) {
  EXPECT_THAT(ChooseExperts({.experts = 3, .top_k = 2}, kScores, {}),
              ElementsAre(0, 1, 0, 1, 0, 2, 1, 0));
  const std::vector<double> ties = {
      0.2, 0.4, 0.4, std::numeric_limits<double>::quiet_NaN(), 0, 0};
  EXPECT_THAT(ChooseExperts({.experts = 3, .top_k = 2}, ties, {}),
              ElementsAre(1, 2, 1, 2));
}

// The bias changes who is chosen.
TEST(ExpertChoiceTest, BiasesCountInTheChoice) {
  const std::vector<double> bias = {-0.45, 0, 0};
  EXPECT_THAT(ChooseExperts({.experts = 3, .top_k = 1}, kScores, bias),
              ElementsAre(1, 0, 2, 1));
}

TEST(ExpertChoiceTest, TokensUseTheirBestGroupsOnly) {
  // Of two groups the second has the best pair, the first the best expert.
  const std::vector<double> scores = {0.4, 0.0, 0.3, 0.25};
  EXPECT_THAT(
      ChooseExperts({.experts = 4, .top_k = 2, .groups = 2, .top_groups = 1},
                    scores, {}),
      ElementsAre(2, 3));
  EXPECT_THAT(
      ChooseExperts({.experts = 4, .top_k = 1, .groups = 2, .top_groups = 1},
                    scores, {}),
      ElementsAre(0));
}

TEST(ExpertChoiceTest, CapacityIsAShareOfTheSamplesRoutesRoundedUp) {
  const auto capacity = [](double factor, int64_t top_k) {
    return ExpertCapacity(
        {.experts = 3, .top_k = top_k, .capacity_factor = factor}, 4);
  };
  EXPECT_EQ(capacity(1, 2), 3);  // of 8 routes
  EXPECT_EQ(capacity(1.125, 2), 3);
  EXPECT_EQ(capacity(1.2, 2), 4);
  EXPECT_EQ(capacity(0.01, 1), 1);
  // 11 of 10, though the product of their doubles is above that.
  EXPECT_EQ(
      ExpertCapacity({.experts = 4, .top_k = 1, .capacity_factor = 1.1}, 40),
      11);
  EXPECT_EQ(capacity(3, 2), 4);  // no token has two routes to one expert
}

TEST(ExpertChoiceTest, LaterTokensAndLaterChoicesAreDroppedFirst) {
  const MoeConfig config = {.experts = 3, .top_k = 2, .capacity_factor = 1};
  std::vector<int32_t> choices = ChooseExperts(config, kScores, {});
  DropOverCapacity(config, kScores, 2, choices);
  // Expert 0: tokens 0 and 1, of 0, 1, 2 and, as second choice, 3. Expert 1:
  // token 3, whose first choice it is, and token 0.
  EXPECT_THAT(choices, ElementsAre(0, 1, 0, -1, -1, 2, 1, -1));
}

TEST(ExpertChoiceTest, ByScoreTheLeastSureTokensAreDropped) {
  const MoeConfig config = {.experts = 3,
                            .top_k = 1,
                            .capacity_factor = 1,
                            .drop = MoeConfig::Drop::kByScore};
  std::vector<int32_t> choices = ChooseExperts(config, kScores, {});
  DropOverCapacity(config, kScores, 1, choices);
  EXPECT_THAT(choices, ElementsAre(-1, 0, -1, 1));
}

// Of seven tokens the experts have 3, 3 and 1 at most: with room for 3 a bound
// is none, however drops are ordered; with one place less both fullest experts
// lose the last route that they had room for.
TEST(ExpertChoiceTest, ABoundThatIsNotReachedDropsNothing) {
  const std::vector<double> scores = {0.6, 0.3, 0.1, 0.1, 0.8, 0.1, 0.7,
                                      0.2, 0.1, 0.2, 0.5, 0.3, 0.0, 0.1,
                                      0.9, 0.8, 0.1, 0.1, 0.0, 0.9, 0.1};
  for (const auto& [drop, first, second] :
       {std::tuple(MoeConfig::Drop::kByOrder, 5, 6),
        std::tuple(MoeConfig::Drop::kByScore, 0, 3)}) {
    const MoeConfig config = {
        .experts = 3, .top_k = 1, .capacity_factor = 1.25, .drop = drop};
    const std::vector<int32_t> asked = ChooseExperts(config, scores, {});
    ASSERT_EQ(ExpertCapacity(config, 7), 3);
    std::vector<int32_t> kept = asked;
    DropOverCapacity(config, scores, 3, kept);
    EXPECT_EQ(kept, asked);
    std::vector<int32_t> expected = asked;
    expected[first] = expected[second] = -1;
    kept = asked;
    DropOverCapacity(config, scores, 2, kept);
    EXPECT_EQ(kept, expected);
  }
}

// Two ranks that broke the tie unlike would send a token to other experts.
TEST(ExpertChoiceTest, OfEqualGroupsTheLowestIsUsed) {
  const std::vector<double> scores = {0.1, 0.2, 0.1, 0.2, 0.0, 0.4};
  const MoeConfig config = {
      .experts = 6, .top_k = 2, .groups = 3, .top_groups = 1};
  EXPECT_THAT(ChooseExperts(config, scores, {}), ElementsAre(5, 4));
  const std::vector<double> equal = {0.1, 0.2, 0.1, 0.2, 0.2, 0.1};
  EXPECT_THAT(ChooseExperts(config, equal, {}), ElementsAre(1, 0));
}

TEST(ExpertChoiceTest, ExpertsTakeAsManyTokensAsTheirCapacity) {
  // Tokens 0 and 3 tie for expert 2.
  EXPECT_THAT(ChooseTokens({.experts = 3}, kScores, 2),
              ElementsAre(0, 1, 2, 0, -1, -1, -1, -1, 2, -1, 1, -1));
}

}  // namespace
}  // namespace trireme
