// The choices of a tuned plan are ones that the plan may have.

#include "trainer/preflight/tune_experts.h"

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.h"
#include "trainer/train.h"

namespace trireme {
namespace {

TrainingSetup SmallSetup(bool experts) {
  DitConfig config;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.mlp_hidden = 64;
  config.classes = 10;
  config.image = {.channels = 1, .height = 8, .width = 8};
  if (experts) {
    config.moe = MoeConfig{.experts = 8, .top_k = 2, .expert_hidden = 16};
  }
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/8);
  setup.global_batch = 8;
  return setup;
}

constexpr PlanContext kContext = {.world_size = 4,
                                  .global_batch = 8,
                                  .num_blocks = 2,
                                  .heads = 4,
                                  .experts = 8};

TEST(TuneExpertsTest, FindsChoicesForEveryLoad) {
  Plan plan;
  plan.mutable_grid()->set_dp(4);
  plan.mutable_grid()->set_ep(4);
  plan.mutable_experts()->set_node_ranks(2);
  plan = *ResolvePlan(plan, kContext);
  std::mutex mutex;
  TunedExperts tuned;
  RunThreadRanks(4, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 30);
    const auto found = TuneExperts(
        SmallSetup(/*experts=*/true), plan, device, factory,
        {.repetitions = 1, .place = {.host = rank < 3 ? "a" : "b"}});
    CHECK_OK(found.status());
    const std::lock_guard lock(mutex);
    if (rank == 0) tuned = *found;
  });
  *plan.mutable_experts() = tuned.experts;
  EXPECT_TRUE(ResolvePlan(plan, kContext).ok())
      << ResolvePlan(plan, kContext).status();
  EXPECT_EQ(plan.experts().move(), Plan::Experts::ADAPTIVE);
  ASSERT_GE(plan.experts().choices_size(), 1);
  EXPECT_EQ(plan.experts().choices().rbegin()->max_load(), 4);
  EXPECT_EQ(plan.experts().tuned_for().ep(), 4u);
  EXPECT_EQ(plan.experts().tuned_for().experts(), 8u);
  EXPECT_EQ(plan.experts().tuned_for().expert_hidden(), 16u);
  EXPECT_EQ(plan.experts().tuned_for().machine_ranks(), 3u);
  EXPECT_EQ(plan.experts().tuned_for().machines(), 2u);
  EXPECT_NE(tuned.report.find("2 of 8 experts of 16 channels, ep 4"),
            std::string::npos)
      << tuned.report;
  EXPECT_NE(tuned.report.find("rows by nodes"), std::string::npos);
  // What it gains to choose by load.
  EXPECT_THAT(tuned.report,
              testing::ContainsRegex("for all loads alike (weights|rows).* is "
                                     "best, and takes [0-9.]+ times as long"));
}

// A table of another cluster would be slow, and nothing would say so.
TEST(TuneExpertsTest, OtherMachinesRefuseTheChoices) {
  TrainOptions options;
  options.progress_bar = false;
  options.share.ranks = 2;
  CHECK_OK(ParseTextProto(R"(model { dit { hidden: 16 layers: 1 heads: 2
                                           patch: 14 moe { experts: 2 } } }
                             data { idx { folder:
                                      "/usr/share/datasets/fashion-mnist" }
                                    resolution: 28 }
                             global_batch: 2
                             steps: 1
                             checkpoint { every_minutes: 0 }
                             sample { at_end: false }
                             precision: FP32)",
                          "job", &options.job)
               .status());
  CHECK_OK(FillJobDefaults(options.job));
  int runs = 0;
  const auto train = [&](const char* tuned_for) {
    options.out = fmt::format("{}/tuned_for_{}", testing::TempDir(), ++runs);
    std::filesystem::remove_all(options.out);
    Plan plan;
    CHECK_OK(ParseTextProto(
                 fmt::format("grid {{ dp: 2 ep: 2 }} experts {{ move: ADAPTIVE "
                             "choices {{ max_load: 2 move: ROWS }} "
                             "tuned_for {{ {} }} }}",
                             tuned_for),
                 "plan", &plan)
                 .status());
    options.plan = plan;
    std::mutex mutex;
    std::vector<std::string> messages;
    RunThreadRanks(2, [&](CommunicatorFactory& factory, int) {
      const auto end = Train(options, factory);
      const std::lock_guard lock(mutex);
      messages.push_back(MessageOf(end.status()));
    });
    return messages;
  };
  for (const std::string& message : train("machine_ranks: 4")) {
    EXPECT_EQ(message,
              "plan.experts.tuned_for.machine_ranks: found 4, expected 2, "
              "which choices are measured for again by trireme tune");
  }
  for (const std::string& message :
       train("machine_ranks: 2 device: 'abacus'")) {
    EXPECT_NE(message.find("tuned_for.device: found 'abacus', expected '"),
              std::string::npos)
        << message;
  }
  // The same machines behind links that no machine has.
  for (const std::string& message :
       train("machine_ranks: 2 within_bytes_per_s: 1e15")) {
    EXPECT_NE(message.find("tuned_for.within_bytes_per_s: found 1e+15, "
                           "expected about "),
              std::string::npos)
        << message;
  }
  // A table of before there was more to compare.
  for (const std::string& message : train("machine_ranks: 2")) {
    EXPECT_EQ(message, "");
  }
}

TEST(TuneExpertsTest, NeedsExpertsThatAreDivided) {
  Plan plan;
  plan.mutable_grid()->set_dp(1);
  PlanContext one = kContext;
  one.world_size = 1;
  plan = *ResolvePlan(plan, one);
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    CpuDevice device(int64_t{1} << 30);
    EXPECT_EQ(
        TuneExperts(SmallSetup(true), plan, device, factory).status().message(),
        "plan.grid.ep: found 1, expected more: nothing moves between "
        "ranks");
    EXPECT_EQ(TuneExperts(SmallSetup(false), plan, device, factory)
                  .status()
                  .message(),
              "model: found none with experts, expected one");
  });
}

}  // namespace
}  // namespace trireme
