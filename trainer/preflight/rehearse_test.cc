#include "trainer/preflight/rehearse.h"

#include <mutex>

#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/comm/threads/thread_world.h"
#include "scheduler/plan/plan.h"
#include "trainer/job/job.h"

namespace trireme {
namespace {

constexpr double kMemoryBytesPerS = 1e12;

// Two devices in one node, slow enough that what a busy machine adds to a
// sleep is little against their computation.
ClusterModel TwoDevices(int64_t memory_bytes) {
  Cluster cluster;
  Cluster::Device& device = *cluster.add_devices();
  device.set_name("slow");
  device.set_peak_bf16_flops(2e8);
  device.set_peak_fp32_flops(2e8);
  device.set_achieved_bf16_flops(1e8);
  device.set_achieved_fp32_flops(1e8);
  device.set_memory_bytes(memory_bytes);
  device.set_memory_bytes_per_s(kMemoryBytesPerS);
  Cluster::Node& node = *cluster.add_nodes();
  node.set_device("slow");
  node.set_count(2);
  node.mutable_link()->set_bytes_per_s(1e9);
  const auto model = ResolveCluster(cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

RehearseOptions Options(const Plan& plan,
                        int64_t memory_bytes = int64_t{1} << 30) {
  RehearseOptions options;
  DitConfig config;
  config.image = {.channels = 1, .height = 8, .width = 8};
  config.patch = 2;
  config.hidden = 32;
  config.heads = 2;
  config.mlp_hidden = 128;
  config.layers = 4;
  config.classes = 3;
  options.setup.family = MakeDitFamily(config);
  options.setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/1);
  options.setup.global_batch = 4;
  options.cluster = TwoDevices(memory_bytes);
  const auto resolved = ResolvePlan(plan, PlanContextOf(options.setup, 2));
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  options.plan = *resolved;
  options.steps = 2;
  return options;
}

absl::StatusOr<Rehearsal> RehearseOnThreads(const RehearseOptions& options) {
  absl::StatusOr<Rehearsal> result = Rehearsal();
  std::mutex mutex;
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    auto rehearsal = Rehearse(options, factory);
    const std::lock_guard lock(mutex);
    if (rank == 0) result = std::move(rehearsal);
  });
  return result;
}

Plan TwoStages() {
  Plan plan;
  plan.mutable_grid()->set_pp(2);
  plan.set_microbatch_size(1);
  return plan;
}

// A rehearsal that computes for less than it says would promise too much. On a
// busy machine a step makes up for late wake-ups of the one before; what it
// could forget to compute is a larger part.
constexpr double kComputed = 0.85;

TEST(Rehearse, TakesAtLeastTheTimeOfTheComputation) {
  const auto rehearsal = RehearseOnThreads(Options(TwoStages()));
  ASSERT_TRUE(rehearsal.ok()) << rehearsal.status();
  ASSERT_EQ(rehearsal->steps.size(), 2u);
  const double compute = rehearsal->predicted.parts.compute_s;
  EXPECT_GT(compute, 5e-3);
  for (const StepMetrics& step : rehearsal->steps) {
    EXPECT_GT(step.compute_s, kComputed * compute);
    EXPECT_GT(step.step_s, step.compute_s);
  }
  EXPECT_NE(RehearsalText(*rehearsal).find("bubble"), std::string::npos);
}

double SumOfParts(const StepMetrics& step) {
  double sum = step.compute_s;
  for (const auto& [cause, seconds] : step.exposed_s) sum += seconds;
  return sum;
}

// A stage that has three quarters of the work, be it the first, for whose
// backward the other waits at the end, or the last: that wait is a bubble, the
// parts make up the step, and the simulator says how long it takes.
TEST(Rehearse, TheWaitForASlowStageIsABubble) {
  for (const bool slow_first : {true, false}) {
    Plan plan = TwoStages();
    plan.add_stages()->set_blocks(slow_first ? 3 : 1);
    plan.add_stages()->set_blocks(slow_first ? 1 : 3);
    const auto rehearsal = RehearseOnThreads(Options(plan));
    ASSERT_TRUE(rehearsal.ok()) << rehearsal.status();
    for (const StepMetrics& step : rehearsal->steps) {
      EXPECT_NEAR(SumOfParts(step), step.step_s, 0.05 * step.step_s);
      // At least half of the time of one of two ranks.
      EXPECT_GT(step.exposed_s.at("bubble"), 0.25 * step.step_s);
      EXPECT_GT(step.exposed_s.at("bubble"), 2 * step.exposed_s.at("pp"));
      EXPECT_LT(step.exposed_s.at("optimizer"), 0.1 * step.step_s);
      ASSERT_TRUE(step.simulated_s.has_value());
      EXPECT_NEAR(*step.simulated_s, step.step_s, 0.2 * step.step_s);
    }
  }
}

TEST(Rehearse, RunsRecomputedBlocksTwice) {
  Plan plan = TwoStages();
  const auto once = RehearseOnThreads(Options(plan));
  plan.set_recompute(Plan::FULL);
  const auto twice = RehearseOnThreads(Options(plan));
  ASSERT_TRUE(once.ok() && twice.ok());
  const StepParts& parts = twice->predicted.parts;
  EXPECT_GT(parts.recompute_s, 0);
  EXPECT_GT(twice->steps.front().compute_s,
            kComputed * (parts.compute_s + parts.recompute_s));
}

// Weight gradients that are put off take their time where they are run.
TEST(Rehearse, SplitsBackwards) {
  Plan plan = TwoStages();
  plan.set_schedule(Plan::ZB_H1);
  const auto rehearsal = RehearseOnThreads(Options(plan));
  ASSERT_TRUE(rehearsal.ok()) << rehearsal.status();
  EXPECT_GT(rehearsal->steps.front().compute_s,
            0.99 * rehearsal->predicted.parts.compute_s);
}

// Two ranks that embed and one that serves both.
TEST(Rehearse, RunsStagesOfUnlikeNumbersOfRanks) {
  RehearseOptions options = Options(TwoStages());
  options.cluster.nodes[0].count = 3;
  options.cluster.node_of_rank.push_back(0);
  Plan plan;
  plan.set_microbatch_size(1);
  plan.mutable_skip()->add_stage_ranks(2);
  plan.mutable_skip()->add_stage_ranks(1);
  const auto resolved = ResolvePlan(plan, PlanContextOf(options.setup, 3));
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  options.plan = *resolved;
  RunThreadRanks(3, [&](CommunicatorFactory& factory, int) {
    const auto rehearsal = Rehearse(options, factory);
    ASSERT_TRUE(rehearsal.ok()) << rehearsal.status();
    EXPECT_GT(rehearsal->predicted.step_s, 5e-3);
    EXPECT_GT(rehearsal->steps.back().step_s, 5e-3);
  });
}

// Of blocks that stream in: behind what is computed where the link allows it,
// else at its rate, as the simulator has it.
TEST(Rehearse, CopiesAndUpdatesRunBesideComputation) {
  for (const double link : {1e9, 8e6}) {
    SCOPED_TRACE(link);
    Plan plan;
    plan.mutable_grid()->set_tp(2);
    plan.set_microbatch_size(1);
    plan.mutable_offload()->set_resident_units(2);
    RehearseOptions options = Options(plan);
    ClusterDevice& device = options.cluster.devices[0];
    device.to_device_bytes_per_s = device.to_host_bytes_per_s = link;
    // Updates take about as long as a step's forwards.
    options.cluster.nodes[0].host_memory_bytes_per_s = 1e8;
    const auto rehearsal = RehearseOnThreads(options);
    ASSERT_TRUE(rehearsal.ok()) << rehearsal.status();
    const StepParts& parts = rehearsal->predicted.parts;
    EXPECT_EQ(parts.copy_s > 0.2 * rehearsal->predicted.step_s, link < 1e9);
    for (const StepMetrics& step : rehearsal->steps) {
      // A busy machine adds to it, and hides some of the copies behind that.
      EXPECT_GT(step.step_s, kComputed * rehearsal->predicted.step_s);
      EXPECT_NEAR(SumOfParts(step), step.step_s, 0.05 * step.step_s);
      if (link < 1e9) {
        EXPECT_GT(step.exposed_s.at("copies"), 0.5 * parts.copy_s);
      }
    }
    EXPECT_NE(RehearsalText(*rehearsal).find("copies"), std::string::npos);
  }
}

TEST(Rehearse, RefusesWhatDoesNotFitTheDevices) {
  const auto rehearsal = RehearseOnThreads(Options(TwoStages(), 1 << 16));
  EXPECT_EQ(rehearsal.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Rehearse, RefusesAnotherNumberOfRanks) {
  RehearseOptions options = Options(TwoStages());
  options.cluster.node_of_rank.push_back(0);
  EXPECT_EQ(RehearseOnThreads(options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trireme
