// Whoever trains experts reads of a run's end whether one of them is idle.

#include "trainer/sampling/route_shares.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

std::string RunWith(const std::string& name, const std::string& metrics) {
  const std::string run = testing::TempDir() + "/" + name;
  std::filesystem::remove_all(run);
  std::filesystem::create_directories(run);
  std::ofstream(RunFolder(run).metrics()) << metrics;
  return run;
}

TEST(RouteSharesTest, AreThoseOfTheLastSteps) {
  const std::string run =
      RunWith("shares", R"({"step":1,"expert_shares":{"a":[0.01,0.99]}}
{"step":2,"expert_shares":{"a":[0.4,0.6],"b":[0.5,0.5]}}
{"step":3,"expert_shares":{"a":[0.52,0.48],"b":[0.75,0.25]}}
)");
  EXPECT_EQ(RouteSharesText(run, /*steps=*/2),
            "routes of the last 2 steps: an expert has 25 % to 75 % of its "
            "layer's\n");
  EXPECT_EQ(RouteSharesText(run),
            "routes of the last 3 steps: an expert has 1 % to 99 % of its "
            "layer's\n");
}

TEST(RouteSharesTest, ThereAreNoneWithoutExpertsOrMetrics) {
  EXPECT_EQ(RouteSharesText(RunWith("dense", "{\"step\":1,\"loss\":2}\n")), "");
  EXPECT_EQ(RouteSharesText(testing::TempDir() + "/not_there"), "");
}

// What was drawn for an hour is not lost with a line of the log, nor with all
// of it.
TEST(RouteSharesTest, AreOfTheLinesThatCanBeRead) {
  EXPECT_EQ(
      RouteSharesText(RunWith(
          "broken",
          "{\"step\":1,\"expert_shares\":{\"a\":[0.4,0.6]}}\n{\"step\":\n")),
      "routes of the last 1 steps: an expert has 40 % to 60 % of its "
      "layer's\n");
  const std::string run = testing::TempDir() + "/a_folder";
  std::filesystem::create_directories(RunFolder(run).metrics());
  EXPECT_THAT(RouteSharesText(run),
              testing::StartsWith("routes are not known: "));
}

}  // namespace
}  // namespace trireme
