// Inputs that a seed cannot bring again would lose what they found.

#include "tests/fuzz/mutator.h"

#include <algorithm>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace trireme {
namespace {

constexpr size_t kMaxBytes = 64;

TEST(MutatorTest, TheSameSeedGivesTheSameInputs) {
  Mutator a({"one two 3", ""}, 7, kMaxBytes),
      b({"one two 3", ""}, 7, kMaxBytes);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(a.Next(), b.Next());
}

TEST(MutatorTest, WhatIsAddedIsChangedToo) {
  Mutator mutator({""}, 3, kMaxBytes);
  mutator.Add("what reached a new block");
  int of_it = 0;
  for (int i = 0; i < 100; ++i) {
    of_it += mutator.Next().find("reached") != std::string::npos;
  }
  EXPECT_GT(of_it, 0);
}

TEST(MutatorTest, InputsAreManyAndBounded) {
  Mutator mutator({"step: 12 loss: 0.5", std::string(kMaxBytes, 'x'), ""}, 1,
                  kMaxBytes);
  std::set<std::string> inputs;
  size_t longest = 0;
  bool bounds = false;
  for (int i = 0; i < 5000; ++i) {
    const std::string input = mutator.Next();
    longest = std::max(longest, input.size());
    bounds = bounds || input.find("18446744073709551616") != std::string::npos;
    inputs.insert(input);
  }
  // A third starts from nothing, of which fewer things come.
  EXPECT_GT(inputs.size(), 3000u);
  EXPECT_EQ(longest, kMaxBytes);
  EXPECT_TRUE(bounds) << "numbers at bounds are what parsers fail by";
}

}  // namespace
}  // namespace trireme
