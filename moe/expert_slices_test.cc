// Sums of what the ranks of an expert return are the same whichever of them
// sums what, and rows go to one rank of each run.

#include "moe/expert_slices.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

class ExpertSlicesTest : public testing::Test {
 protected:
  // Whose sums in another order have other bits.
  Tensor Part(int64_t i) {
    std::vector<float> values;
    for (int j = 0; j < 5; ++j) {
      values.push_back(std::exp2(static_cast<float>(5 * i % 13)) *
                       std::sin(static_cast<float>(3 * i + j)));
    }
    return Tensor::FromValues<float>(device_, {1, 5}, values);
  }
  std::vector<float> SumOf(int64_t begin, int64_t n) {
    return SumByTree(n, [&](int64_t i) { return Part(begin + i); })
        .ToVector<float>();
  }

  CpuDevice device_{1 << 20};
};

TEST_F(ExpertSlicesTest, BranchesMayBeSummedElsewhere) {
  for (const int64_t n : {2, 4, 8, 16, 3, 9}) {
    const std::vector<float> whole = SumOf(0, n);
    for (int64_t each = 1; each <= n; ++each) {
      if (n % each != 0) continue;
      EXPECT_EQ(SumByTree(n / each,
                          [&](int64_t i) {
                            return Tensor::FromValues<float>(
                                device_, {1, 5}, SumOf(i * each, each));
                          })
                    .ToVector<float>(),
                whole)
          << n << " by " << each;
    }
  }
  // In order the same numbers have another sum.
  EXPECT_NE(
      SumByTree(8, 8, [&](int64_t i) { return Part(i); }).ToVector<float>(),
      SumOf(0, 8));
}

TEST_F(ExpertSlicesTest, RunsAreSummedInOrder) {
  const auto part = [&](int64_t i) { return Part(i); };
  const std::vector<float> first = SumByTree(3, 3, part).ToVector<float>();
  EXPECT_THAT(first, ElementsAreArray(SumByTree(2, [&](int64_t i) {
                                        return i == 0 ? SumByTree(2, part)
                                                      : Part(2);
                                      }).ToVector<float>()));
}

TEST_F(ExpertSlicesTest, CopiesOfGroupsComeTogetherAgain) {
  const Tensor rows =
      Tensor::FromValues<double>(device_, {3, 1}, std::vector{1.0, 2.0, 3.0});
  const std::vector<int64_t> counts = {2, 0, 1};
  const Tensor copies = CopyGroups(rows, counts, 2);
  EXPECT_THAT(copies.ToVector<double>(), ElementsAre(1, 2, 1, 2, 3, 3));
  EXPECT_THAT(CountsOfCopies(counts, 2), ElementsAre(2, 2, 0, 0, 1, 1));
  EXPECT_THAT(SumCopies(copies, counts, 2).ToVector<double>(),
              ElementsAre(2, 4, 6));
  // The operand stays.
  EXPECT_THAT(copies.ToVector<double>(), ElementsAre(1, 2, 1, 2, 3, 3));
}

// Two experts of two slices, of which both come together: the first two ranks'
// rows go to the first of each expert's ranks.
TEST_F(ExpertSlicesTest, RanksOfARunShareTheRowsByTheirSenders) {
  const std::vector<int64_t> table = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_THAT(RoutesToSlices(table, 4, {.slices = 2, .copies = 1}),
              ElementsAre(1, 0, 2, 0,  //
                          3, 0, 4, 0,  //
                          0, 5, 0, 6,  //
                          0, 7, 0, 8));
  EXPECT_THAT(RoutesToSlices(table, 4, {.slices = 2, .copies = 2}),
              ElementsAre(1, 1, 2, 2,  //
                          3, 3, 4, 4,  //
                          5, 5, 6, 6,  //
                          7, 7, 8, 8));
}

}  // namespace
}  // namespace trireme
