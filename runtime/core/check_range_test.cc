#include "runtime/core/check_range.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(CheckRangeTest, BoundsAreInside) {
  EXPECT_TRUE(CheckRange("steps", 1, 1, 10).ok());
  EXPECT_TRUE(CheckRange("steps", 10, 1, 10).ok());
  EXPECT_TRUE(CheckRange("weight_decay", 0.0, 0, 100).ok());
  EXPECT_TRUE(CheckRange("weight_decay", 100.0, 0, 100).ok());
}

TEST(CheckRangeTest, SaysWhatWasFoundAndExpected) {
  EXPECT_EQ(CheckRange("model.dit.hidden", int64_t{3}, 4, 1 << 17).message(),
            "model.dit.hidden: found 3, expected 4 to 131072");
  EXPECT_EQ(CheckRange("optimizer.beta1", 1.5, 0, 1).message(),
            "optimizer.beta1: found 1.5, expected 0 to 1");
}

TEST(CheckRangeTest, WholeNumbersAreComparedExactlyWhateverTheirSigns) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(CheckRange("bytes", kMost, 0, kMost - 1).ok());
  EXPECT_FALSE(CheckRange("bytes", kMost, -1, 1).ok());
  EXPECT_FALSE(CheckRange("rank", -1, 0u, 7u).ok());
}

TEST(CheckRangeTest, NotANumberIsInNoRange) {
  EXPECT_FALSE(
      CheckRange("eps", std::numeric_limits<double>::quiet_NaN(), -1e300, 1e300)
          .ok());
}

}  // namespace
}  // namespace trireme
