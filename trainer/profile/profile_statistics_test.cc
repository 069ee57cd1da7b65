#include "trainer/profile/profile_statistics.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

// A profile of slow links must end: what takes long is repeated less, yet often
// enough for a median.
TEST(RepetitionsWithin, AreFewerWhereOneTakesLong) {
  EXPECT_EQ(RepetitionsWithin(3, 0.001, 5), 5);
  EXPECT_EQ(RepetitionsWithin(3, 0.7, 5), 4);
  EXPECT_EQ(RepetitionsWithin(3, 60, 5), 3);
}

TEST(RepetitionsWithin, AreNeverMoreThanAskedFor) {
  EXPECT_EQ(RepetitionsWithin(3, 60, 2), 2);
  EXPECT_EQ(RepetitionsWithin(3, 1e-9, 1), 1);
}

TEST(Spread, IsOfTheMedian) {
  EXPECT_DOUBLE_EQ(Spread({2, 1, 4}), 1.5);
  EXPECT_DOUBLE_EQ(Spread({7}), 0);
}

}  // namespace
}  // namespace trireme
