#include "models/objective/assignment.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

double CostOf(const std::vector<double>& costs,
              const std::vector<int32_t>& columns) {
  double cost = 0;
  for (size_t row = 0; row < columns.size(); ++row) {
    cost += costs[row * columns.size() + columns[row]];
  }
  return cost;
}

// A pairing that is not the best one bends a flow's paths without a sound.
TEST(AssignmentTest, NoPermutationCostsLess) {
  for (int n = 1; n <= 6; ++n) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const RandomStream random({.seed = seed});
      std::vector<double> costs(n * n);
      for (size_t i = 0; i < costs.size(); ++i) {
        // Some are equal, some negative.
        costs[i] = static_cast<double>(random.Bits(i) % 7) - 2;
      }
      std::vector<int32_t> order(n);
      std::iota(order.begin(), order.end(), 0);
      double least = std::numeric_limits<double>::infinity();
      do {
        least = std::min(least, CostOf(costs, order));
      } while (std::next_permutation(order.begin(), order.end()));
      std::vector<int32_t> found = LeastCostAssignment(costs, n);
      EXPECT_EQ(CostOf(costs, found), least) << n << ", " << seed;
      // The loop above ends with the first order.
      std::sort(found.begin(), found.end());
      EXPECT_EQ(found, order) << n << ", " << seed;
    }
  }
}

TEST(AssignmentTest, FindsAPermutationAgain) {
  constexpr int64_t kSize = 200;
  std::vector<double> costs(kSize * kSize, 1.0);
  for (int64_t row = 0; row < kSize; ++row) {
    costs[row * kSize + row * 77 % kSize] = 0;
  }
  const std::vector<int32_t> found = LeastCostAssignment(costs, kSize);
  for (int64_t row = 0; row < kSize; ++row) {
    EXPECT_EQ(found[row], row * 77 % kSize) << row;
  }
}

}  // namespace
}  // namespace trireme
