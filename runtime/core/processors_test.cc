#include "runtime/core/processors.h"

#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

ProcessorSet From(int first, int count) {
  ProcessorSet set;
  for (int i = 0; i < count; ++i) set.set(first + i);
  return set;
}

TEST(ProcessorsTest, RanksThatAreBoundHaveTheirOwn) {
  const std::vector<ProcessorSet> allowed = {From(0, 4), From(4, 4)};
  const ProcessorShare share = ShareProcessors(allowed, 1, {});
  EXPECT_EQ(share.processors, 8);
  EXPECT_EQ(share.threads, 4);
  EXPECT_FALSE(share.crowded());
}

TEST(ProcessorsTest, RanksThatAreNotBoundShareAll) {
  const std::vector<ProcessorSet> allowed(4, From(0, 64));
  EXPECT_EQ(ShareProcessors(allowed, 0, {}).threads, 16);
  // A control group may allow fewer at once.
  EXPECT_EQ(ShareProcessors(allowed, 0, 8).threads, 2);
  EXPECT_TRUE(ShareProcessors(allowed, 0, 1.5).crowded());
}

// The sum of what they may use, 8, is less than the machine's 64.
TEST(ProcessorsTest, RanksOfASmallSetOfALargeMachineAreCrowded) {
  const std::vector<ProcessorSet> allowed(4, From(10, 2));
  const ProcessorShare share = ShareProcessors(allowed, 3, {});
  EXPECT_EQ(share.processors, 2);
  EXPECT_EQ(share.ranks, 4);
  EXPECT_EQ(share.threads, 1);
  EXPECT_TRUE(share.crowded());
}

TEST(ProcessorsTest, RanksBoundByTwosToSocketsShareThese) {
  const std::vector<ProcessorSet> allowed = {From(0, 8), From(0, 8), From(8, 8),
                                             From(8, 8)};
  const ProcessorShare share = ShareProcessors(allowed, 2, {});
  EXPECT_EQ(share.threads, 4);
  EXPECT_FALSE(share.crowded());
}

TEST(ProcessorsTest, ThisProcessHasSome) {
  EXPECT_GE(AvailableProcessors(), 1);
  EXPECT_LE(AvailableProcessors(),
            static_cast<int>(AllowedProcessors().count()));
}

}  // namespace
}  // namespace trireme
