#include "trainer/rank/rank_model.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "moe/moe_tokens.h"
#include "runtime/comm/forwarding_testing.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "trainer/metrics/memory_deviation.h"
#include "trainer/metrics/step_metrics.h"

namespace trireme {
namespace {

TrainingSetup SmallSetup(int64_t layers = 2) {
  DitConfig config;
  config.hidden = 32;
  config.layers = layers;
  config.heads = 4;
  config.mlp_hidden = 128;
  config.classes = 10;
  config.image = {.channels = 1, .height = 16, .width = 16};
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/8);
  setup.optimizer.ema_decay = 0.99;
  setup.global_batch = 8;
  return setup;
}

Plan Resolved(const Plan& plan, const TrainingSetup& setup, int64_t ranks) {
  return *ResolvePlan(plan, {.world_size = ranks,
                             .global_batch = setup.global_batch,
                             .num_blocks = setup.family->Shape().layers,
                             .heads = setup.family->Shape().heads});
}

Plan SmallPlan(const TrainingSetup& setup, Plan::Recompute recompute) {
  Plan plan;
  plan.set_microbatches(2);
  plan.set_recompute(recompute);
  return Resolved(plan, setup, /*ranks=*/1);
}

// A model in a process of its own.
struct OneRank {
  explicit OneRank(const TrainingSetup& setup,
                   Plan::Recompute recompute = Plan::NONE)
      : built(RankModel::Build(setup, SmallPlan(setup, recompute), device,
                               world)) {
    EXPECT_TRUE(built.ok()) << MessageOf(built.status());
  }
  RankModel& model() { return **built; }

  CpuDevice device{int64_t{1} << 32};
  SingleWorld world;
  absl::StatusOr<std::unique_ptr<RankModel>> built;
};

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

void ExpectPartsSumToStep(const StepTimes& times) {
  const double parts = times.forward + times.backward + times.optimizer +
                       times.pipeline_wait + times.gradient_wait +
                       times.copy_wait;
  EXPECT_LE(parts, 1.0001 * times.step);
  EXPECT_GE(parts, 0.9 * times.step);
}

// The MFU of a partial pipeline counts what it computes.
TEST(RankModel, BlocksComputedAreThoseThatMicrobatchesComeTo) {
  const TrainingSetup setup = SmallSetup(/*layers=*/3);
  Plan plan;
  plan.mutable_grid()->set_pp(3);
  plan.set_microbatches(4);
  const auto computed = [&] {
    std::array<int64_t, 3> by_rank = {};
    RunThreadRanks(3, [&](CommunicatorFactory& factory, int rank) {
      CpuDevice device(int64_t{1} << 32);
      const auto model =
          RankModel::Build(setup, Resolved(plan, setup, 3), device, factory);
      ASSERT_TRUE(model.ok()) << MessageOf(model.status());
      by_rank[rank] = (*model)->BlocksComputed();
    });
    return by_rank[0] + by_rank[1] + by_rank[2];
  };
  EXPECT_EQ(computed(), 3 * setup.global_batch);
  plan.mutable_skip()->set_stages_per_microbatch(2);
  EXPECT_EQ(computed(), 2 * setup.global_batch);
}

// Whoever has the tokens, and however often they are computed again: 16 tokens
// of 8 samples have two routes each in both layers.
TEST(RankModel, CountsRoutesOfExpertsOnceInAllMicrobatches) {
  TrainingSetup setup = SmallSetup();
  DitConfig config;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.mlp_hidden = 64;
  config.classes = 10;
  config.moe = MoeConfig{.experts = 4, .top_k = 2, .expert_hidden = 16};
  config.image = {.channels = 1, .height = 16, .width = 16};
  setup.family = MakeDitFamily(config);
  setup.dtype = DType::kFloat64;
  const int64_t tokens = setup.family->Shape().tokens;
  const auto counts = [&](int ranks) {
    std::map<std::string, std::vector<double>> found;
    RunThreadRanks(ranks, [&](CommunicatorFactory& factory, int rank) {
      CpuDevice device(int64_t{1} << 32);
      Plan plan;
      plan.mutable_grid()->set_tp(ranks);
      plan.mutable_grid()->set_ep(ranks);
      plan.set_microbatches(2);
      plan.set_recompute(Plan::FULL);
      plan = *ResolvePlan(plan, {.world_size = ranks,
                                 .global_batch = setup.global_batch,
                                 .num_blocks = 2,
                                 .heads = 4,
                                 .experts = 4});
      const auto model = RankModel::Build(setup, plan, device, factory);
      ASSERT_TRUE(model.ok()) << MessageOf(model.status());
      const auto step = (*model)->Step(GrayBatch(device, 8), {.step = 1});
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      if (rank == 0) found = step->counts;
    });
    return found;
  };
  const auto one = counts(1);
  ASSERT_EQ(one.size(), size_t{2});
  ASSERT_TRUE(one.contains("blocks.1.moe"));
  for (const auto& [layer, routes] : one) {
    EXPECT_EQ(std::accumulate(routes.begin(), routes.end(), 0.0),
              2.0 * 8 * static_cast<double>(tokens))
        << layer;
  }
  EXPECT_EQ(counts(2), one);

  // What capacities drop is told from what was asked for.
  config.moe->capacity_factor = 1;
  setup.family = MakeDitFamily(config);
  const auto capped = counts(1);
  const auto all = [&](const std::string& name) {
    const std::vector<double>& routes = capped.at(name);
    return std::accumulate(routes.begin(), routes.end(), 0.0);
  };
  for (const std::string layer : {"blocks.0.moe", "blocks.1.moe"}) {
    EXPECT_EQ(all(layer + kDemandedRoutes),
              2.0 * 8 * static_cast<double>(tokens));
    EXPECT_LT(all(layer), all(layer + kDemandedRoutes));
    EXPECT_GT(all(layer), 0);
  }
  EXPECT_EQ(counts(2), capped);
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
      plan = Resolved(plan, setup, /*ranks=*/2);
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

// Longer than anything else in a step of these models.
constexpr double kLateSeconds = 2;

// Where the gradient norm is summed, it is waited for: an event that says so.
class LateWork final : public Event::Work {
 public:
  explicit LateWork(Event event) : event_(std::move(event)) {}
  void Wait() override {
    event_.Wait();
    std::this_thread::sleep_for(std::chrono::duration<double>(kLateSeconds));
  }
  bool Test() override { return event_.Test(); }

 private:
  Event event_;
};

Event LateNorm(Communicator& inner, Operation operation) {
  Event event = inner.Run(std::move(operation));
  if (!inner.name().starts_with("model shards")) return event;
  return Event(std::make_shared<LateWork>(std::move(event)));
}

StepTimes TimesWithALateNorm(Plan plan, CommunicatorFactory& factory) {
  const TrainingSetup setup = SmallSetup();
  plan.set_microbatches(2);
  plan = Resolved(plan, setup, /*ranks=*/2);
  CpuDevice device(int64_t{1} << 32);
  ForwardingWorld late(factory, LateNorm);
  const auto model = RankModel::Build(setup, plan, device, late);
  EXPECT_TRUE(model.ok()) << MessageOf(model.status());
  if (!model.ok()) return {};
  const auto result = (*model)->Step(GrayBatch(device, (*model)->local_batch()),
                                     {.step = 1, .learning_rate = 1e-3});
  EXPECT_TRUE(result.ok()) << MessageOf(result.status());
  return result.ok() ? result->times : StepTimes();
}

// The sum of the norm is where a rank that is done early waits for the slowest:
// with a pipeline for its stage, which is bubble, else for its replica. It is
// not the optimizer's work.
TEST(RankModel, TheWaitForTheSlowestBeforeClippingIsBookedToItsCause) {
  RunThreadRanks(2, [](CommunicatorFactory& factory, int) {
    Plan pipeline;
    pipeline.mutable_grid()->set_pp(2);
    const StepTimes stages = TimesWithALateNorm(pipeline, factory);
    EXPECT_GT(stages.pipeline_wait, 0.9 * kLateSeconds);
    EXPECT_LT(stages.gradient_wait, 0.5 * kLateSeconds);
    EXPECT_LT(stages.optimizer, 0.5 * kLateSeconds);
    EXPECT_LT(stages.costs.clip, 0.5 * kLateSeconds);
    EXPECT_GT(stages.costs.clip_wait, 0.9 * kLateSeconds);
    EXPECT_LT(stages.costs.reduction, 0.5 * kLateSeconds);
    ExpectPartsSumToStep(stages);

    Plan sharded;
    sharded.mutable_grid()->set_dp(2);
    sharded.set_sharding(Plan::GRADIENTS);
    const StepTimes replicas = TimesWithALateNorm(sharded, factory);
    EXPECT_LT(replicas.pipeline_wait, 0.5 * kLateSeconds);
    EXPECT_GT(replicas.gradient_wait, 0.9 * kLateSeconds);
    EXPECT_LT(replicas.sharding_wait, 0.5 * kLateSeconds);
    EXPECT_LT(replicas.optimizer, 0.5 * kLateSeconds);
    EXPECT_GT(replicas.costs.clip_wait, 0.9 * kLateSeconds);
    ExpectPartsSumToStep(replicas);
  });
}

// Each second of a step is shown once, under the cause that it was booked to.
TEST(StepMetrics, ShowEveryCauseOnce) {
  const TrainingSetup setup = SmallSetup();
  OneRank rank(setup);
  ASSERT_TRUE(rank.built.ok());
  RankModel& model = rank.model();
  GlobalStepResult result;
  result.times.step = 127;
  result.times.forward = 16;
  result.times.backward = 32;
  result.times.optimizer = 64;
  result.times.pipeline_wait = 8;
  result.times.gradient_wait = 7;
  result.times.sharding_wait = 3;
  result.times.copy_wait = 9;
  result.times.costs.chunks.resize(1);
  StepMetricsCollector collector(model);
  const StepMetrics metrics = collector.Collect(result, 1, 128, 5);
  EXPECT_DOUBLE_EQ(metrics.compute_s, 16 + 32 - 3);
  EXPECT_EQ(metrics.exposed_s,
            (std::map<std::string, double>{{"data", 1},
                                           {"tp", 0},
                                           {"cp", 0},
                                           {"ep", 0},
                                           {"bubble", 0},
                                           {"pp", 8},
                                           {"dp", 7 + 3},
                                           {"copies", 9},
                                           {"optimizer", 64}}));
  EXPECT_EQ(metrics.step_s, 128);
  EXPECT_EQ(metrics.skipped_samples, 5);
}

// A replica with more tokens than the others keeps them waiting: 30 tokens
// where one has 20 on average. A replica's other ranks do not count again.
TEST(StepMetrics, TellHowUnevenReplicasTokensAre) {
  for (const int tp : {1, 2}) {
    RunThreadRanks(2 * tp, [&](CommunicatorFactory& factory, int) {
      const TrainingSetup setup = SmallSetup();
      Plan plan;
      plan.mutable_grid()->set_tp(tp);
      plan.mutable_grid()->set_dp(2);
      plan = Resolved(plan, setup, /*ranks=*/2 * tp);
      CpuDevice device(int64_t{1} << 32);
      const auto model = RankModel::Build(setup, plan, device, factory);
      ASSERT_TRUE(model.ok()) << MessageOf(model.status());
      auto result = (*model)->Step(GrayBatch(device, 4),
                                   {.step = 1, .learning_rate = 1e-3});
      ASSERT_TRUE(result.ok()) << MessageOf(result.status());
      const ProcessGrid& grid = (*model)->grid();
      const bool counts = grid.coordinate(Axis::kTensor) == 0;
      const double tokens = 4.0 * setup.family->Shape().tokens;
      EXPECT_EQ(result->tokens, counts ? tokens : 0);
      StepMetricsCollector collector(**model);
      EXPECT_EQ(collector.Collect(*result, 0, 1, 0).token_imbalance, 0);
      if (counts) {
        result->tokens = grid.coordinate(Axis::kData) == 0 ? 10 : 30;
      }
      EXPECT_DOUBLE_EQ(
          collector.Collect(*result, 0, 1, 0).token_imbalance.value(), 0.5);
    });
  }
}

// Rank 1's gradients were promised to be smaller.
TEST(MemoryDeviation, NamesTheWorstRankAndCategory) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    MemoryStatistics predicted;
    predicted.peak_bytes = 1 << 24;
    predicted.peak_by_category.fill(1 << 22);
    MemoryStatistics measured = predicted;
    const auto gradients = static_cast<size_t>(MemoryCategory::kGradients);
    if (rank == 1) measured.peak_by_category[gradients] += 1 << 17;
    // A bound may stay unused.
    const auto activations = static_cast<size_t>(MemoryCategory::kActivations);
    MemoryStatistics bound = predicted;
    bound.peak_by_category[activations] += 1 << 20;
    const std::array everyone = {0, 1};
    const auto world = factory.Create(everyone, "world");
    Control control(*world);
    const MemoryDeviation worst = LargestMemoryDeviation(
        measured, predicted, MemoryPrediction::kExact, control);
    const MemoryDeviation worst_of_bound = LargestMemoryDeviation(
        measured, bound, MemoryPrediction::kBound, control);
    for (const MemoryDeviation& found : {worst, worst_of_bound}) {
      EXPECT_DOUBLE_EQ(found.share, 1.0 / 32);
      EXPECT_EQ(found.rank, 1);
      EXPECT_EQ(found.category, MemoryCategory::kGradients);
    }
  });
}

class RankModelMemoryTest : public testing::TestWithParam<DType> {};

// The figure that a user is promised before step 0 is the one he gets.
TEST_P(RankModelMemoryTest, PredictedPeakIsTheMeasuredPeak) {
  for (const auto recompute : {Plan::NONE, Plan::FULL}) {
    TrainingSetup setup = SmallSetup();
    setup.dtype = GetParam();
    OneRank rank(setup, recompute);
    ASSERT_TRUE(rank.built.ok());
    RankModel& model = rank.model();
    ASSERT_TRUE(
        model
            .Step(GrayBatch(rank.device, 8), {.step = 1, .learning_rate = 1e-3})
            .ok());
    const MemoryStatistics measured = rank.device.Statistics();
    const MemoryStatistics& predicted = model.predicted_memory();
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
  EXPECT_NE(message.find("To fit: raise memory_limit_bytes, use a smaller "
                         "microbatch_size, recompute FULL, offload or a larger "
                         "tp or pp"),
            std::string::npos)
      << message;
  EXPECT_EQ(device.Statistics().peak_bytes, 0);
  // What the plan does already is not proposed.
  CpuDevice smaller(10 << 10);
  Plan plan;
  plan.set_microbatch_size(1);
  plan.set_recompute(Plan::FULL);
  plan.mutable_offload()->set_resident_units(1);
  const std::string offloaded =
      MessageOf(RankModel::Build(setup, Resolved(plan, setup, /*ranks=*/1),
                                 smaller, world)
                    .status());
  EXPECT_NE(offloaded.find("To fit: raise memory_limit_bytes, "
                           "offload.activations or a larger tp or pp"),
            std::string::npos)
      << offloaded;
  // Nor what its schedule does not allow.
  Plan halves;
  halves.mutable_grid()->set_pp(2);
  halves.set_schedule(Plan::ZB_H1);
  halves.set_microbatches(2);
  const std::string refused =
      MessageOf(RankModel::Build(setup, Resolved(halves, setup, /*ranks=*/2),
                                 smaller, world)
                    .status());
  EXPECT_NE(refused.find("recompute FULL or a larger tp or pp"),
            std::string::npos)
      << refused;
}

TEST(RankModelTest, RecomputeNeedsLessMemory) {
  const TrainingSetup setup = SmallSetup(/*layers=*/6);
  OneRank kept(setup), recomputed(setup, Plan::FULL);
  ASSERT_TRUE(kept.built.ok() && recomputed.built.ok());
  EXPECT_LT(recomputed.model().predicted_memory().peak_bytes,
            kept.model().predicted_memory().peak_bytes);
}

TEST(RankModelTest, TrainingOnOneBatchLowersItsLoss) {
  const TrainingSetup setup = [] {
    TrainingSetup small = SmallSetup();
    small.dtype = DType::kFloat32;
    return small;
  }();
  OneRank rank(setup);
  ASSERT_TRUE(rank.built.ok());
  RankModel& model = rank.model();
  const Batch batch = GrayBatch(rank.device, 8);
  double first = 0, last = 0;
  for (int64_t step = 1; step <= 40; ++step) {
    const auto result =
        model.Step(batch, {.step = step, .learning_rate = 1e-2});
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
  OneRank rank(setup);
  ASSERT_TRUE(rank.built.ok());
  RankModel& model = rank.model();
  const Batch batch = GrayBatch(rank.device, 8);
  const std::vector<float> before =
      model.MasterParts().front().local.ToVector<float>();
  const auto first = model.Step(batch, {.step = 1, .learning_rate = 1e-2});
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(std::isfinite(first->gradient_norm));
  EXPECT_EQ(first->skipped_steps, 1);
  EXPECT_EQ(model.MasterParts().front().local.ToVector<float>(), before);
  EXPECT_EQ(model.loss_scaler().state().scale, 5e11);
  double first_loss = first->loss, last = 0;
  for (int64_t step = 2; step <= 80; ++step) {
    const auto result =
        model.Step(batch, {.step = step, .learning_rate = 1e-2});
    ASSERT_TRUE(result.ok());
    last = result->loss;
  }
  const LossScalerState& state = model.loss_scaler().state();
  EXPECT_GT(state.skipped_steps, 10);
  EXPECT_LT(state.skipped_steps, 60);
  EXPECT_LT(last, 0.6 * first_loss);
}

// A closed gate hides a huge branch from the loss, not from the gate's
// gradient. Without loss scaling nothing else would keep the weights from it,
// nor the next checkpoint.
TEST(RankModelTest, AGradientThatIsNotFiniteLeavesTheWeights) {
  TrainingSetup setup = SmallSetup();
  setup.dtype = DType::kFloat32;
  OneRank rank(setup);
  ASSERT_TRUE(rank.built.ok());
  RankModel& model = rank.model();
  const auto fill = [&](std::string_view name, float value) {
    for (const TensorPart& part : model.MasterParts()) {
      if (part.name != name) continue;
      std::fill_n(part.local.data<float>(), part.local.num_elements(), value);
      return;
    }
    FAIL() << name;
  };
  fill("final.linear.weight", 1e3F);
  fill("blocks.1.mlp.out.weight", 1e36F);
  model.SyncValues();
  const auto weights = [&] {
    std::vector<std::vector<float>> values;
    for (const TensorPart& part : model.MasterParts()) {
      values.push_back(part.local.ToVector<float>());
    }
    return values;
  };
  const auto before = weights();
  const auto result =
      model.Step(GrayBatch(rank.device, 8), {.step = 1, .learning_rate = 1e-2});
  ASSERT_TRUE(result.ok()) << MessageOf(result.status());
  EXPECT_TRUE(std::isfinite(result->loss)) << result->loss;
  EXPECT_FALSE(std::isfinite(result->gradient_norm)) << result->gradient_norm;
  EXPECT_EQ(weights(), before);
}

// What saves the state of the step before copies it until then.
TEST(RankModelTest, TheStateIsThatOfTheStepBeforeUntilItsUpdate) {
  OneRank rank(SmallSetup());
  ASSERT_TRUE(rank.built.ok());
  const auto state = [&] {
    std::vector<std::vector<float>> values;
    for (const auto& parts :
         {rank.model().MasterParts(), rank.model().MomentParts(false),
          rank.model().MomentParts(true)}) {
      for (const TensorPart& part : parts) {
        values.push_back(part.local.ToVector<float>());
      }
    }
    return values;
  };
  for (const int64_t step : {1, 2}) {
    const auto before = state();
    int times = 0;
    StepOptions options{.step = step, .learning_rate = 1e-2};
    options.admits = [&](double, double) {
      ++times;
      EXPECT_EQ(state(), before);
      return true;
    };
    ASSERT_TRUE(rank.model().Step(GrayBatch(rank.device, 8), options).ok());
    EXPECT_EQ(times, 1);
    EXPECT_NE(state(), before);
  }
}

TEST(RankModelTest, AStepThatIsNotAdmittedLeavesNoTrace) {
  OneRank rank(SmallSetup()), other(SmallSetup());
  ASSERT_TRUE(rank.built.ok() && other.built.ok());
  const Batch batch = GrayBatch(rank.device, 8);
  double told = 0;
  const auto refused =
      rank.model().Step(batch, {.step = 1,
                                .learning_rate = 1e-2,
                                .admits = [&](double loss, double /*norm*/) {
                                  told = loss;
                                  return false;
                                }});
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(told, refused->loss);
  rank.model().set_left_out_steps(1);
  // Adam's bias correction counts from 1 as if there had been no such step.
  ASSERT_TRUE(
      rank.model().Step(batch, {.step = 2, .learning_rate = 1e-2}).ok());
  ASSERT_TRUE(
      other.model()
          .Step(GrayBatch(other.device, 8), {.step = 1, .learning_rate = 1e-2})
          .ok());
  const std::vector<TensorPart> parts = rank.model().MasterParts();
  const std::vector<TensorPart> others = other.model().MasterParts();
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].local.ToVector<float>(),
              others[i].local.ToVector<float>())
        << parts[i].name;
  }
}

}  // namespace
}  // namespace trireme
