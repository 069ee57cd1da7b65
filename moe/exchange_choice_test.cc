#include "moe/exchange_choice.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

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

TEST(ExchangeChoice, EvenRoutingShadowsNone) {
  EXPECT_THAT(ChooseShadowed(WithHot(10), kRanks, 8, WithShadowOf(1)),
              IsEmpty());
}

TEST(ExchangeChoice, WithoutAnExpertNoRowsGoToIt) {
  const std::vector<int64_t> table = Without({5}, WithHot(7), kRanks);
  EXPECT_EQ(CountsBetween(kRanks, table)(0, 2), 10);
  EXPECT_EQ(CountsBetween(kRanks, table)(0, 1), 20);
}

}  // namespace
}  // namespace trireme
