#include "runtime/core/nearest_name.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(NearestName, FindsTheNameWithAMissingAnExtraOrASwappedLetter) {
  const std::vector<std::string> valid = {"optimizer", "objective", "hidden"};
  EXPECT_EQ(NearestName("optimzer", valid), "optimizer");
  EXPECT_EQ(NearestName("hiddden", valid), "hidden");
  EXPECT_EQ(NearestName("hiddne", valid), "hidden");
  EXPECT_EQ(NearestName("HIDDEN", valid), "hidden");
}

TEST(NearestName, PrefersTheFewestEdits) {
  EXPECT_EQ(NearestName("beta2", {"beta1", "beta2"}), "beta2");
  EXPECT_EQ(NearestName("steps", {"stops", "step", "steps"}), "steps");
}

TEST(NearestName, SuggestsNothingFarFetched) {
  EXPECT_EQ(NearestName("banana", {"optimizer", "model"}), "");
  EXPECT_EQ(NearestName("x", {"tp", "cp"}), "");
  EXPECT_EQ(NearestName("", {"tp"}), "");
  EXPECT_EQ(NearestName(std::string(1000, 'a'), {std::string(1000, 'a')}), "");
}

}  // namespace
}  // namespace trireme
