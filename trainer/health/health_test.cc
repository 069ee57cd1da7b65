// A fault that is planted into a model is found, and named with its place.

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "trainer/health/non_finite.h"
#include "trainer/health/replicas.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int64_t kBatch = 8;

TrainingSetup SmallSetup() {
  DitConfig config;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.mlp_hidden = 128;
  config.classes = 10;
  config.image = {.channels = 1, .height = 16, .width = 16};
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, kBatch);
  setup.optimizer.ema_decay = 0.99;
  setup.global_batch = kBatch;
  setup.dtype = DType::kFloat32;
  return setup;
}

Batch GrayBatch(Device& device, int64_t n) {
  Batch batch;
  batch.step = 1;
  for (int64_t i = 0; i < n; ++i) batch.samples.push_back(i);
  batch.fields[kPixelsField].values =
      Tensor::Zeros(device, {n, 1, 16, 16}, DType::kFloat32,
                    MemoryCategory::kActivations, "batch");
  batch.fields[kLabelField].values = Tensor::Zeros(device, {n}, DType::kInt32);
  return batch;
}

// What `look` says on each rank of a model under the plan.
std::vector<std::string> OnRanks(
    const std::function<void(Plan&)>& write_plan,
    const std::function<std::string(RankModel&, const Batch&, int rank)>&
        look) {
  const TrainingSetup setup = SmallSetup();
  Plan plan;
  write_plan(plan);
  const int ranks = static_cast<int>(RanksOf(plan).value());
  plan = ResolvePlan(plan, {.world_size = ranks,
                            .global_batch = kBatch,
                            .num_blocks = setup.family->Shape().layers,
                            .heads = setup.family->Shape().heads})
             .value();
  std::vector<std::string> told(ranks);
  RunThreadRanks(ranks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 32);
    const auto model = RankModel::Build(setup, plan, device, factory);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    told[rank] =
        look(**model, GrayBatch(device, (*model)->local_batch()), rank);
  });
  return told;
}

std::span<float> Master(RankModel& model, std::string_view name) {
  for (const TensorPart& part : model.MasterParts()) {
    if (part.name != name) continue;
    return {part.local.data<float>(),
            static_cast<size_t>(part.local.num_elements())};
  }
  return {};
}

void FlipOneBit(float& value) {
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1U);
}

TEST(ReplicasTest, AFlippedBitIsFoundWithItsRankAndTensor) {
  const auto told = OnRanks(
      [](Plan& plan) { plan.mutable_grid()->set_dp(4); },
      [](RankModel& model, const Batch& batch, int rank) -> std::string {
        const auto step = model.Step(batch, {.step = 1, .learning_rate = 1e-2});
        if (!step.ok()) return MessageOf(step.status());
        const absl::Status before = CompareReplicas(model);
        if (!before.ok()) return "before: " + MessageOf(before);
        if (rank == 2) FlipOneBit(Master(model, "blocks.1.mlp.out.weight")[5]);
        return MessageOf(CompareReplicas(model));
      });
  EXPECT_THAT(told, Each(AllOf(HasSubstr("'blocks.1.mlp.out.weight'"),
                               HasSubstr("of rank 2 differs from what the 4 "
                                         "ranks that hold it alike"))));
}

// Of two none is more than the other.
TEST(ReplicasTest, OfTwoBothAreNamed) {
  const auto told = OnRanks(
      [](Plan& plan) {
        plan.mutable_grid()->set_dp(2);
        plan.mutable_grid()->set_tp(2);
      },
      [](RankModel& model, const Batch&, int rank) {
        // A rank of the first replica and one of the second hold it.
        if (rank == 3) FlipOneBit(Master(model, "blocks.0.mlp.out.weight")[0]);
        return MessageOf(CompareReplicas(model));
      });
  EXPECT_THAT(told, Each(HasSubstr("of ranks 1, 3 differs from what the 2")));
}

// The moments that ranks share have no replicas; the weights have.
TEST(ReplicasTest, ShardedOptimizersAreComparedByTheirWeights) {
  const auto told = OnRanks(
      [](Plan& plan) {
        plan.mutable_grid()->set_dp(4);
        plan.set_sharding(Plan::OPTIMIZER);
      },
      [](RankModel& model, const Batch& batch, int rank) -> std::string {
        const auto step = model.Step(batch, {.step = 1, .learning_rate = 1e-2});
        if (!step.ok()) return MessageOf(step.status());
        const absl::Status before = CompareReplicas(model);
        if (!before.ok()) return "before: " + MessageOf(before);
        for (const TensorPart& part : model.ValueParts()) {
          if (rank == 1 && part.name == "final.linear.weight") {
            FlipOneBit(part.local.data<float>()[0]);
          }
        }
        return MessageOf(CompareReplicas(model));
      });
  EXPECT_THAT(told, Each(HasSubstr("'final.linear.weight' of rank 1")));
}

std::string Find(RankModel& model, const Batch& batch) {
  const StepOptions options = {.step = 1, .learning_rate = 1e-2};
  const auto step = model.Step(batch, options);
  if (!step.ok()) return MessageOf(step.status());
  const auto found = FindNonFinite(model, batch, options);
  return found.ok() ? *found : MessageOf(found.status());
}

void UseTwoStages(Plan& plan) {
  plan.mutable_grid()->set_pp(2);
  plan.set_microbatches(2);
}

// Behind a closed gate 0 times infinity is none.
TEST(NonFiniteTest, TheBlockWhoseForwardOverflowsIsNamed) {
  for (const int block : {0, 1}) {
    const auto told =
        OnRanks(UseTwoStages, [&](RankModel& model, const Batch& batch, int) {
          for (float& weight :
               Master(model, fmt::format("blocks.{}.mlp.out.weight", block))) {
            weight = 3e38F;
          }
          model.SyncValues();
          return Find(model, batch);
        });
    EXPECT_THAT(told, Each(HasSubstr(fmt::format(
                          "the output of block {0}, in forward of microbatch 0 "
                          "on rank {0}",
                          block))));
  }
}

// A closed gate hides a huge branch from the loss, not from the gate's
// gradient. The head's weights alternate: the norm before it takes away what
// all channels have in common.
TEST(NonFiniteTest, TheBlockWhoseBackwardOverflowsIsNamed) {
  const auto told =
      OnRanks(UseTwoStages, [](RankModel& model, const Batch& batch, int) {
        float sign = 1;
        for (float& weight : Master(model, "final.linear.weight")) {
          weight = 1e3F * (sign = -sign);
        }
        for (float& weight : Master(model, "blocks.1.mlp.out.weight")) {
          weight = 1e36F;
        }
        model.SyncValues();
        return Find(model, batch);
      });
  EXPECT_THAT(told, Each(AllOf(HasSubstr("gradient of"), HasSubstr("rank 1"))));
}

// Each gradient is finite, and its square is not.
TEST(NonFiniteTest, TheGradientWhoseSquareOverflowsIsNamed) {
  const auto told =
      OnRanks(UseTwoStages, [](RankModel& model, const Batch& batch, int) {
        for (float& weight : Master(model, "final.linear.weight")) {
          weight = 1e3F;
        }
        for (float& weight : Master(model, "blocks.1.mlp.out.weight")) {
          weight = 1e36F;
        }
        model.SyncValues();
        return Find(model, batch);
      });
  EXPECT_THAT(told,
              Each(AllOf(HasSubstr("their squares are not"),
                         HasSubstr("of 'blocks.1."), HasSubstr("on rank 1"))));
}

TEST(NonFiniteTest, AWeightThatIsNoNumberIsNamed) {
  const auto told =
      OnRanks(UseTwoStages, [](RankModel& model, const Batch& batch, int) {
        const std::span<float> weight =
            Master(model, "blocks.1.mlp.out.weight");
        if (!weight.empty()) weight[3] = NAN;
        model.SyncValues();
        return Find(model, batch);
      });
  EXPECT_THAT(told, Each(HasSubstr("the weight 'blocks.1.mlp.out.weight'")));
}

TEST(NonFiniteTest, WhatIsFiniteTheSecondTimeIsTold) {
  const auto told =
      OnRanks(UseTwoStages, [](RankModel& model, const Batch& batch, int) {
        return Find(model, batch);
      });
  EXPECT_THAT(told, Each(HasSubstr("computed once more, all is finite")));
}

}  // namespace
}  // namespace trireme
