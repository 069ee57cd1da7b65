// What is drawn are tokens that may stand there, as often as the model says,
// and no unlikely ones where the user wants none.

#include "models/sampling/token_choice.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// Probabilities 0.1, 0.2, 0.3, 0.4.
const std::vector<float> kLogits = {std::log(1.0F), std::log(2.0F),
                                    std::log(3.0F), std::log(4.0F)};
const std::vector<TokenInterval> kAll = {{0, 4}};

std::map<int32_t, double> Shares(const TokenChoice& choice,
                                 const std::vector<TokenInterval>& allowed) {
  constexpr int kDraws = 1000;
  std::map<int32_t, double> shares;
  for (int i = 0; i < kDraws; ++i) {
    shares[ChooseToken(choice, kLogits, allowed, (i + 0.5) / kDraws)] +=
        1.0 / kDraws;
  }
  return shares;
}

TEST(TokenChoiceTest, TokensComeAsOftenAsTheirProbabilitiesSay) {
  const auto shares = Shares({}, kAll);
  ASSERT_EQ(shares.size(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(shares.at(i), 0.1 * (i + 1), 2e-3) << i;
  }
}

TEST(TokenChoiceTest, TemperatureSharpensAndZeroTakesTheLikeliest) {
  // Squared and normalised: 1, 4, 9, 16 of 30.
  const auto sharp = Shares({.temperature = 0.5}, kAll);
  EXPECT_NEAR(sharp.at(3), 16.0 / 30, 2e-3);
  const auto greedy = Shares({.temperature = 0}, kAll);
  ASSERT_EQ(greedy.size(), 1);
  EXPECT_TRUE(greedy.contains(3));
}

TEST(TokenChoiceTest, UnlikelyTokensAreLeftOut) {
  const auto two = Shares({.top_k = 2}, kAll);
  ASSERT_EQ(two.size(), 2);
  EXPECT_NEAR(two.at(3), 4.0 / 7, 2e-3);
  // 0.4 and 0.3 come to 0.7; 0.65 takes both, 0.35 the first one alone.
  EXPECT_EQ(Shares({.top_p = 0.65}, kAll).size(), 2);
  EXPECT_EQ(Shares({.top_p = 0.35}, kAll).size(), 1);
}

TEST(TokenChoiceTest, OnlyWhatIsAllowedComes) {
  const auto shares = Shares({}, {{0, 1}, {2, 3}});
  ASSERT_EQ(shares.size(), 2);
  EXPECT_NEAR(shares.at(0), 0.25, 2e-3);
  EXPECT_NEAR(shares.at(2), 0.75, 2e-3);
  // A model that has gone wrong still draws what may stand there.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> broken(4, nan);
  const std::vector<TokenInterval> last = {{2, 4}};
  EXPECT_EQ(ChooseToken({}, broken, last, 0.9), 2);
}

}  // namespace
}  // namespace trireme
