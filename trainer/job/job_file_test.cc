// Whether what a launch hands over is what its ranks read, however long it is.

#include "trainer/job/job_file.h"

#include <cstdlib>
#include <map>
#include <string>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A plan for thousands of devices is as long.
std::string LongPlan(size_t bytes) {
  return "grid { dp: 2 } # \"" + std::string(bytes, 'x') + "\n";
}

// Where no file of the name lies, as on another host.
std::string ReadThere(const std::string& path) {
  const auto plan = LoadPlanFile(path);
  return plan.ok() ? plan->text : MessageOf(plan.status());
}

TEST(JobFileTest, LongFilesTravelWithALaunch) {
  for (const size_t bytes : {100, 110 << 10, 350 << 10, 1150 << 10, 10}) {
    const std::string plan = LongPlan(bytes);
    SetCarriedFiles({{"/no/plan", plan}, {"/no/other", "seed: 1"}});
    EXPECT_EQ(ReadThere("/no/plan"), plan) << bytes;
    EXPECT_EQ(ReadThere("/no/other").substr(0, 9), "/no/other");
    // Linux starts nothing with too long an environment.
    EXPECT_EQ(std::system("true"), 0) << bytes;
  }
}

TEST(JobFileTest, WhatIsTooLongIsReadWhereItLies) {
  const std::map<std::string, std::string> texts = {
      {"/no/plan", LongPlan(2 << 20)}};
  ASSERT_EQ(CarriedFiles(texts).size(), 1);
  EXPECT_EQ(CarriedFiles(texts)[0].value, "");
  SetCarriedFiles(texts);
  EXPECT_EQ(ReadThere("/no/plan").substr(0, 8), "/no/plan");
}

}  // namespace
}  // namespace trireme
