#include "tests/parity/covering.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(CoverPairsTest, EveryPairOfTheWholeIsInTheSelection) {
  // All of 3 x 3 x 3: nine cases can hold each pair once.
  std::vector<CoveringCase> cases;
  for (const std::string a : {"a0", "a1", "a2"}) {
    for (const std::string b : {"b0", "b1", "b2"}) {
      for (const std::string c : {"c0", "c1", "c2"}) {
        cases.push_back({.features = {a, b, c}});
      }
    }
  }
  const std::vector<size_t> chosen = CoverPairs(cases);
  EXPECT_LE(chosen.size(), 12u);
  const auto occurs = [&](const std::string& one, const std::string& other) {
    for (const size_t i : chosen) {
      const std::vector<std::string>& features = cases[i].features;
      if (std::count(features.begin(), features.end(), one) > 0 &&
          std::count(features.begin(), features.end(), other) > 0) {
        return true;
      }
    }
    return false;
  };
  for (const CoveringCase& one : cases) {
    for (const std::string& first : one.features) {
      for (const std::string& second : one.features) {
        EXPECT_TRUE(occurs(first, second)) << first << " with " << second;
      }
    }
  }
}

TEST(CoverPairsTest, PrefersWhatCostsLess) {
  EXPECT_EQ(CoverPairs({{.features = {"a", "b"}, .cost = 3},
                        {.features = {"a", "b"}, .cost = 1}}),
            (std::vector<size_t>{1}));
  // A case of one feature only counts, too.
  EXPECT_EQ(CoverPairs({{.features = {"a"}}, {.features = {"b"}}}),
            (std::vector<size_t>{0, 1}));
  EXPECT_TRUE(CoverPairs({}).empty());
}

}  // namespace
}  // namespace trireme
