#include "models/data/sample_order.h"

#include <cstdint>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(SampleOrderTest, EveryEpochVisitsEachSampleOnce) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000}) {
    const SampleOrder order(7, size);
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::set<int64_t> seen;
      for (int64_t i = 0; i < size; ++i) {
        const int64_t index = order.Index(epoch * size + i);
        ASSERT_GE(index, 0);
        ASSERT_LT(index, size);
        seen.insert(index);
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
    }
  }
}

TEST(SampleOrderTest, EpochsAndSeedsDiffer) {
  const SampleOrder order(7, 1000);
  const SampleOrder other(8, 1000);
  int same_epoch = 0;
  int same_seed = 0;
  int in_place = 0;
  for (int i = 0; i < 1000; ++i) {
    same_epoch += order.Index(i) == order.Index(1000 + i);
    same_seed += order.Index(i) == other.Index(i);
    in_place += order.Index(i) == i;
  }
  // One coincidence is expected in each.
  EXPECT_LT(same_epoch, 10);
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(in_place, 10);
}

TEST(SampleOrderTest, MixesTheWholeSet) {
  // Data sets are often sorted by class: a batch must not be of one class.
  const SampleOrder order(1, 10000);
  for (int batch = 0; batch < 20; ++batch) {
    std::vector<int> tenths(10);
    for (int i = 0; i < 500; ++i) {
      ++tenths[order.Index(batch * 500 + i) / 1000];
    }
    for (const int count : tenths) {
      EXPECT_GT(count, 20);  // 50 ± 7
      EXPECT_LT(count, 85);
    }
  }
}

TEST(SampleOrderTest, OrderIsPartOfARunAndMustNotChange) {
  // A changed order would make resumed runs lose and repeat samples.
  const SampleOrder order(42, 100);
  std::vector<int64_t> first;
  for (int i = 0; i < 5; ++i) first.push_back(order.Index(i));
  EXPECT_EQ(first, (std::vector<int64_t>{48, 64, 73, 44, 24}));
}

TEST(SampleOrderTest, ReplacementsGoThroughTheEpochAndReachEverySample) {
  const SampleOrder order(3, 10);
  EXPECT_EQ(order.Replacement(12, 0), order.Index(12));
  EXPECT_EQ(order.Replacement(12, 3), order.Index(15));
  EXPECT_EQ(order.Replacement(19, 1), order.Index(10));
  std::set<int64_t> seen;
  for (int i = 0; i < 10; ++i) seen.insert(order.Replacement(17, i));
  EXPECT_EQ(seen.size(), 10u);
}

TEST(SampleOrderTest, HoldsForHugeSets) {
  const int64_t size = int64_t{1} << 62;
  const SampleOrder order(3, size);
  EXPECT_NE(order.Index(0), order.Index(1));
  EXPECT_LT(order.Index(UINT64_MAX), size);
}

}  // namespace
}  // namespace trireme
