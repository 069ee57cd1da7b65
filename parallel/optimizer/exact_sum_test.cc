// A gradient norm, and with it the clipped gradient, must not depend on which
// rank holds which parameter.

#include "parallel/optimizer/exact_sum.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

double Total(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double term : terms) sum.Add(term);
  return sum.Total();
}

TEST(ExactSumTest, OrderAndGroupingChangeNoBit) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> terms;
  for (int i = 0; i < 1000; ++i) {
    terms.push_back(std::exp(20 * normal(random)) * (i % 5 == 0 ? -1 : 1));
  }
  const double total = Total(terms);
  EXPECT_NEAR(total / std::accumulate(terms.begin(), terms.end(), 0.0L), 1,
              1e-12);
  for (int round = 0; round < 20; ++round) {
    std::shuffle(terms.begin(), terms.end(), random);
    // Two ranks.
    const size_t cut = random() % terms.size();
    ExactSum a, b;
    for (size_t i = 0; i < terms.size(); ++i) (i < cut ? a : b).Add(terms[i]);
    for (size_t i = 0; i < a.words().size(); ++i) a.words()[i] += b.words()[i];
    EXPECT_EQ(a.Total(), total);
  }
}

TEST(ExactSumTest, SingleTermsComeBack) {
  for (const double term :
       {0.0, 1.0, -3.7, 1e-300, 5e-324, 1.7e308, 0.1, 12345.6789}) {
    EXPECT_EQ(Total({term}), term);
  }
}

// An overflow must stay one: it makes a scaled step be left out.
TEST(ExactSumTest, WhatIsNotFiniteStaysSo) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(Total({1.0, infinity, 2.0}), infinity);
  EXPECT_TRUE(std::isnan(Total({1.0, std::nan("")})));
}

}  // namespace
}  // namespace trireme
