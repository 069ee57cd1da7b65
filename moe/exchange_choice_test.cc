#include "moe/exchange_choice.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kRanks = 4;

// Eight experts, two on each rank; every rank has so many routes to expert 5
// and ten to each other.
std::vector<int64_t> WithHot(int64_t hot) {
  std::vector<int64_t> table(kRanks * 8, 10);
  for (int64_t rank = 0; rank < kRanks; ++rank) table[rank * 8 + 5] = hot;
  return table;
}

// In rows.
DispatchSizes WithShadowOf(int64_t rows) {
  return {.experts = 8, .row_bytes = 100, .shadowed_bytes = 100 * rows};
}

TEST(ExchangeChoice, AHotExpertIsShadowedWhereItsRowsAreMore) {
  // Its rank receives 3 * 200 rows more than the others then.
  EXPECT_THAT(ChooseShadowed(WithHot(210), kRanks, 3, WithShadowOf(500)),
              ElementsAre(5));
  EXPECT_THAT(ChooseShadowed(WithHot(210), kRanks, 3, WithShadowOf(700)),
              IsEmpty());
  EXPECT_THAT(ChooseShadowed(WithHot(210), kRanks, 0, WithShadowOf(500)),
              IsEmpty());
}

// Two ranks wait alike, each for rows of an expert of its own.
TEST(ExchangeChoice, HotExpertsOfTwoRanksAreShadowedTogether) {
  std::vector<int64_t> table = WithHot(210);
  for (int64_t rank = 0; rank < kRanks; ++rank) table[rank * 8] = 210;
  EXPECT_THAT(ChooseShadowed(table, kRanks, 3, WithShadowOf(250)),
              ElementsAre(0, 5));
  EXPECT_THAT(ChooseShadowed(table, kRanks, 1, WithShadowOf(250)), IsEmpty());
  EXPECT_THAT(ChooseShadowed(table, kRanks, 3, WithShadowOf(350)), IsEmpty());
}

TEST(ExchangeChoice, ExpertsThatRanksShareAreNotShadowed) {
  // Two experts.
  const std::vector<int64_t> table(kRanks * 2, 10);
  EXPECT_THAT(ChooseShadowed(table, kRanks, 0, WithShadowOf(1)), IsEmpty());
}

// Four ranks share each of two experts. Rows to r of them and the weights of
// 4/r - 1 neighbours are fewest bytes at about r = sqrt(bytes of an expert /
// bytes of one copy of the rows).
TEST(ExchangeChoice, TheMoreRowsThereAreTheFewerOfAnExpertsRanksGetThem) {
  ExpertExchange exchange = {.moves = ExpertExchange::Moves::kAdaptive,
                             .slices = 4};
  const auto choose = [&](int64_t rows) {
    DispatchSizes sizes = {
        .experts = 2, .slices = 4, .row_bytes = 1, .expert_bytes = 140};
    return ChooseExchange(exchange, std::vector<int64_t>(8 * 2, rows / 2), 8,
                          sizes, /*dry=*/false);
  };
  EXPECT_EQ(choose(40).row_copies, 4);
  EXPECT_EQ(choose(100).row_copies, 2);
  EXPECT_EQ(choose(400).row_copies, 1);
  for (const int64_t rows : {40, 100, 400}) {
    EXPECT_EQ(choose(rows).moves, ExpertExchange::Moves::kRows) << rows;
  }
  EXPECT_EQ(choose(1000).moves, ExpertExchange::Moves::kWeights);
  // What no group of ranks was made for is not chosen.
  exchange.choices = {{.max_load = 8, .row_copies = 2}};
  EXPECT_EQ(choose(40).row_copies, 2);
}

TEST(ExchangeChoice, EvenRoutingShadowsNoneUnlessAllOfThemAreFewerBytes) {
  EXPECT_THAT(ChooseShadowed(WithHot(10), kRanks, 8, WithShadowOf(10)),
              IsEmpty());
  EXPECT_THAT(ChooseShadowed(WithHot(10), kRanks, 6, WithShadowOf(1)),
              IsEmpty());
  EXPECT_THAT(ChooseShadowed(WithHot(10), kRanks, 8, WithShadowOf(1)),
              SizeIs(8));
}

TEST(ExchangeChoice, WithoutAnExpertNoRowsGoToIt) {
  const std::vector<int64_t> table = Without({5}, WithHot(7), kRanks);
  EXPECT_EQ(CountsBetween(kRanks, table)(0, 2), 10);
  EXPECT_EQ(CountsBetween(kRanks, table)(0, 1), 20);
}

}  // namespace
}  // namespace trireme
