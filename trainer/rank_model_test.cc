#include "trainer/rank_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan.h"
#include "trainer/memory_deviation.h"
#include "trainer/step_metrics.h"

namespace trireme {
namespace {

TrainingSetup SmallSetup() {
  TrainingSetup setup;
  setup.model.hidden = 32;
  setup.model.layers = 2;
  setup.model.heads = 4;
  setup.model.mlp_hidden = 128;
  setup.model.classes = 10;
  setup.model.image = {.channels = 1, .height = 16, .width = 16};
  setup.optimizer.ema_decay = 0.99;
  setup.global_batch = 8;
  return setup;
}

Plan SmallPlan(const TrainingSetup& setup, Plan::Recompute recompute) {
  Plan plan;
  plan.set_microbatches(2);
  plan.set_recompute(recompute);
  return *ResolvePlan(plan, {.world_size = 1,
                             .global_batch = setup.global_batch,
                             .num_blocks = setup.model.layers,
                             .heads = setup.model.heads});
}

ImageBatch GrayBatch(Device& device, int64_t n) {
  ImageBatch batch;
  batch.step = 1;
  for (int64_t i = 0; i < n; ++i) batch.sample_indices.push_back(i);
  batch.pixels = Tensor::Zeros(device, {n, 1, 16, 16}, DType::kFloat32,
                               MemoryCategory::kActivations, "batch");
  batch.labels = Tensor::Zeros(device, {n}, DType::kInt32);
  return batch;
}

void ExpectPartsSumToStep(const StepTimes& times) {
  const double parts = times.forward + times.backward + times.optimizer +
                       times.pipeline_wait + times.gradient_wait;
  EXPECT_LE(parts, 1.0001 * times.step);
  EXPECT_GE(parts, 0.9 * times.step);
}

// A user reads from these where a step's time goes: a wait that is counted as
// computing, or twice, sends him to the wrong place.
TEST(RankModel, WaitsForShardsAreToldFromComputing) {
  for (const auto sharding : {Plan::REPLICATED, Plan::PARAMETERS}) {
    RunThreadRanks(2, [&](CommunicatorFactory& factory, int) {
      const TrainingSetup setup = SmallSetup();
      Plan plan;
      plan.mutable_grid()->set_dp(2);
      plan.set_microbatches(2);
      plan.set_sharding(sharding);
      plan = *ResolvePlan(plan, {.world_size = 2,
                                 .global_batch = setup.global_batch,
                                 .num_blocks = setup.model.layers,
                                 .heads = setup.model.heads});
      CpuDevice device(int64_t{1} << 32);
      const auto model = RankModel::Build(setup, plan, device, factory);
      ASSERT_TRUE(model.ok()) << MessageOf(model.status());
      const auto result = (*model)->Step(GrayBatch(device, 4),
                                         {.step = 1, .learning_rate = 1e-3});
      ASSERT_TRUE(result.ok()) << MessageOf(result.status());
      const StepTimes& times = result->times;
      EXPECT_LE(times.sharding_wait, times.forward + times.backward);
      ExpectPartsSumToStep(times);
      if (sharding == Plan::REPLICATED) {
        // Reductions are waited for before clipping only.
        EXPECT_EQ(times.sharding_wait, 0);
        EXPECT_GT(times.gradient_wait, 0);
      } else {
        EXPECT_GT(times.sharding_wait, 0);
      }
    });
  }
}

// A rank that is done early waits for the slowest stage in the sum of the
// norm: that is the pipeline's bubble, not the optimizer's work.
TEST(RankModel, TheWaitForTheSlowestStageBeforeClippingIsThePipelines) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    TrainingSetup setup = SmallSetup();
    setup.model.layers = 8;
    Plan plan;
    plan.mutable_grid()->set_pp(2);
    plan.set_microbatches(1);
    // The backward of the slow first stage comes last.
    plan.add_stages()->set_blocks(7);
    plan.add_stages()->set_blocks(1);
    plan = *ResolvePlan(plan, {.world_size = 2,
                               .global_batch = setup.global_batch,
                               .num_blocks = setup.model.layers,
                               .heads = setup.model.heads});
    CpuDevice device(int64_t{1} << 32);
    const auto model = RankModel::Build(setup, plan, device, factory);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    const auto result = (*model)->Step(GrayBatch(device, 8),
                                       {.step = 1, .learning_rate = 1e-3});
    ASSERT_TRUE(result.ok()) << MessageOf(result.status());
    const StepTimes& times = result->times;
    ExpectPartsSumToStep(times);
    if (rank == 0) return;
    // It waits for the first stage's forward and again for its backward.
    EXPECT_GT(times.costs.clip_wait, times.costs.clip);
    EXPECT_GT(times.pipeline_wait, times.costs.clip_wait);
    EXPECT_LT(times.optimizer, 0.5 * times.pipeline_wait);
  });
}

// Rank 1's gradients were promised to be smaller.
TEST(MemoryDeviation, NamesTheWorstRankAndCategory) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 20);
    MemoryStatistics predicted;
    predicted.peak_bytes = 1 << 20;
    predicted.peak_by_category.fill(1 << 18);
    MemoryStatistics measured = predicted;
    const auto gradients = static_cast<size_t>(MemoryCategory::kGradients);
    if (rank == 1) measured.peak_by_category[gradients] += 1 << 13;
    const std::array everyone = {0, 1};
    const auto world = factory.Create(everyone, "world");
    const MemoryDeviation worst =
        LargestMemoryDeviation(measured, predicted, *world, device);
    EXPECT_DOUBLE_EQ(worst.share, 1.0 / 32);
    EXPECT_EQ(worst.rank, 1);
    EXPECT_EQ(worst.category, MemoryCategory::kGradients);
  });
}

class RankModelMemoryTest : public testing::TestWithParam<DType> {};

// The figure that a user is promised before step 0 is the one he gets.
TEST_P(RankModelMemoryTest, PredictedPeakIsTheMeasuredPeak) {
  for (const auto recompute : {Plan::NONE, Plan::FULL}) {
    TrainingSetup setup = SmallSetup();
    setup.dtype = GetParam();
    CpuDevice device(int64_t{1} << 32);
    SingleWorld world;
    const auto model =
        RankModel::Build(setup, SmallPlan(setup, recompute), device, world);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    ASSERT_TRUE(
        (*model)
            ->Step(GrayBatch(device, 8), {.step = 1, .learning_rate = 1e-3})
            .ok());
    const MemoryStatistics measured = device.Statistics();
    const MemoryStatistics& predicted = (*model)->predicted_memory();
    EXPECT_EQ(measured.peak_bytes, predicted.peak_bytes);
    EXPECT_EQ(measured.at_peak_by_category, predicted.at_peak_by_category);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RankModelMemoryTest,
                         testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param));
                         });

TEST(RankModelTest, RefusesAJobThatDoesNotFitBeforeItStarts) {
  const TrainingSetup setup = SmallSetup();
  CpuDevice device(200 << 10);
  SingleWorld world;
  const auto model =
      RankModel::Build(setup, SmallPlan(setup, Plan::NONE), device, world);
  ASSERT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message = MessageOf(model.status());
  EXPECT_NE(message.find("would need"), std::string::npos) << message;
  EXPECT_NE(message.find("To fit:"), std::string::npos) << message;
  EXPECT_EQ(device.Statistics().peak_bytes, 0);
}

TEST(RankModelTest, RecomputeNeedsLessMemory) {
  TrainingSetup setup = SmallSetup();
  setup.model.layers = 6;
  CpuDevice device(int64_t{1} << 32);
  SingleWorld world;
  const auto kept =
      RankModel::Build(setup, SmallPlan(setup, Plan::NONE), device, world);
  const auto recomputed =
      RankModel::Build(setup, SmallPlan(setup, Plan::FULL), device, world);
  ASSERT_TRUE(kept.ok() && recomputed.ok());
  EXPECT_LT((*recomputed)->predicted_memory().peak_bytes,
            (*kept)->predicted_memory().peak_bytes);
}

TEST(RankModelTest, TrainingOnOneBatchLowersItsLoss) {
  const TrainingSetup setup = [] {
    TrainingSetup small = SmallSetup();
    small.dtype = DType::kFloat32;
    return small;
  }();
  CpuDevice device(int64_t{1} << 32);
  SingleWorld world;
  const auto model =
      RankModel::Build(setup, SmallPlan(setup, Plan::NONE), device, world);
  ASSERT_TRUE(model.ok());
  const ImageBatch batch = GrayBatch(device, 8);
  double first = 0, last = 0;
  for (int64_t step = 1; step <= 40; ++step) {
    const auto result =
        (*model)->Step(batch, {.step = step, .learning_rate = 1e-2});
    ASSERT_TRUE(result.ok());
    if (step == 1) first = result->loss;
    last = result->loss;
  }
  EXPECT_NEAR(first, 1.0, 0.15);  // zero-initialised: predicts 0 of noise
  EXPECT_LT(last, 0.5 * first);
}

// An overflow must cost a step, not the weights.
TEST(RankModelTest, OverflowInFp16SkipsTheStepAndHalvesTheScale) {
  TrainingSetup setup = SmallSetup();
  setup.dtype = DType::kFloat16;
  setup.loss_scale = {.enabled = true, .initial = 1e12, .hysteresis = 1};
  CpuDevice device(int64_t{1} << 32);
  SingleWorld world;
  const auto model =
      RankModel::Build(setup, SmallPlan(setup, Plan::NONE), device, world);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  const ImageBatch batch = GrayBatch(device, 8);
  const std::vector<float> before =
      (*model)->MasterParts().front().local.ToVector<float>();
  const auto first = (*model)->Step(batch, {.step = 1, .learning_rate = 1e-2});
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(std::isfinite(first->gradient_norm));
  EXPECT_EQ(first->skipped_steps, 1);
  EXPECT_EQ((*model)->MasterParts().front().local.ToVector<float>(), before);
  EXPECT_EQ((*model)->loss_scaler().state().scale, 5e11);
  double first_loss = first->loss, last = 0;
  for (int64_t step = 2; step <= 80; ++step) {
    const auto result =
        (*model)->Step(batch, {.step = step, .learning_rate = 1e-2});
    ASSERT_TRUE(result.ok());
    last = result->loss;
  }
  const LossScalerState& state = (*model)->loss_scaler().state();
  EXPECT_GT(state.skipped_steps, 10);
  EXPECT_LT(state.skipped_steps, 60);
  EXPECT_LT(last, 0.6 * first_loss);
}

// A closed gate hides a huge branch from the loss, not from the gate's
// gradient. Without loss scaling nothing else would keep the weights from it,
// nor the next checkpoint.
TEST(RankModelTest, AGradientThatIsNotFiniteLeavesTheWeightsAndEndsTheRun) {
  TrainingSetup setup = SmallSetup();
  setup.dtype = DType::kFloat32;
  CpuDevice device(int64_t{1} << 32);
  SingleWorld world;
  const auto model =
      RankModel::Build(setup, SmallPlan(setup, Plan::NONE), device, world);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  const auto fill = [&](std::string_view name, float value) {
    for (const TensorPart& part : (*model)->MasterParts()) {
      if (part.name != name) continue;
      std::fill_n(part.local.data<float>(), part.local.num_elements(), value);
      return;
    }
    FAIL() << name;
  };
  fill("final.linear.weight", 1e3F);
  fill("blocks.1.mlp.out.weight", 1e36F);
  (*model)->SyncValues();
  const auto weights = [&] {
    std::vector<std::vector<float>> values;
    for (const TensorPart& part : (*model)->MasterParts()) {
      values.push_back(part.local.ToVector<float>());
    }
    return values;
  };
  const auto before = weights();
  const auto result =
      (*model)->Step(GrayBatch(device, 8), {.step = 1, .learning_rate = 1e-2});
  ASSERT_TRUE(result.ok()) << MessageOf(result.status());
  EXPECT_TRUE(std::isfinite(result->loss)) << result->loss;
  EXPECT_FALSE(std::isfinite(result->gradient_norm)) << result->gradient_norm;
  EXPECT_EQ(weights(), before);

  StepMetrics metrics;
  metrics.step = 1;
  metrics.loss = result->loss;
  metrics.gradient_norm = result->gradient_norm;
  EXPECT_NE(MessageOf(CheckFinite(metrics)).find("step 1: the gradient's norm"),
            std::string::npos);
  // The scaler lowers its scale and goes on.
  metrics.loss_scale = 65536;
  EXPECT_TRUE(CheckFinite(metrics).ok());
}

}  // namespace
}  // namespace trireme
