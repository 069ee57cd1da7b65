// What stays on a rank comes back at its place, and is part of no message.

#include "parallel/executor/staying_skips.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

BoundarySpec Skip(int64_t made, bool stays) {
  BoundarySpec spec;
  spec.skip_of = made;
  spec.stays = stays;
  return spec;
}

TEST(StayingSkipsTest, WhatOneChunkLeavesAnotherFindsAtItsPlace) {
  const std::vector<BoundarySpec> left = {BoundarySpec(), Skip(0, true),
                                          Skip(1, false), Skip(2, true)};
  EXPECT_EQ(Travelling(left).size(), 2u);
  std::map<int64_t, std::string> staying;
  EXPECT_EQ(
      LeaveStaying<std::string>(left, {"x", "of 0", "of 1", "of 2"}, staying),
      (std::vector<std::string>{"x", "of 1"}));
  // The chunk reads one of them; the other waits for a later one.
  EXPECT_EQ(
      JoinStaying<std::string>({BoundarySpec(), Skip(2, true)}, {"y"}, staying),
      (std::vector<std::string>{"y", "of 2"}));
  EXPECT_EQ(staying, (std::map<int64_t, std::string>{{0, "of 0"}}));
}

TEST(StayingSkipsDeathTest, ASkipThatNobodyLeftEndsTheProgramByItsName) {
  std::map<int64_t, std::string> staying;
  EXPECT_DEATH(
      JoinStaying<std::string>({BoundarySpec(), Skip(3, true)}, {"x"}, staying),
      "the skip of block 3 is not on the rank that reads it");
}

}  // namespace
}  // namespace trireme
