// What a run measures and draws while it trains does not depend on the grid,
// changes no bit of the training, and takes the memory that was predicted.

#include <cmath>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/objective/first_samples.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/evaluation/validation.h"
#include "trainer/rank/rank_model.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 3;
// Fewer than a step's: the rest is padding.
constexpr int64_t kMeasured = 5;
// No multiple of what replicas and microbatches have.
constexpr int64_t kDrawn = 5;
constexpr double kEmaDecay = 0.5;

struct Outcome {
  // Of each step: loss and gradient norm.
  std::vector<double> training;
  // Of the last step.
  double validation_loss = 0;
  std::vector<float> drawn;
};

struct Case {
  GridCase grid;
  // Of losses and samples, relative; 0: bit for bit.
  double tolerance = 1e-9;
};

TrainingSetup AveragedSetup(const GridCase& grid) {
  TrainingSetup setup = SetupOf(grid);
  setup.optimizer.ema_decay = kEmaDecay;
  setup.optimizer.weight_decay = 0.1;
  setup.optimizer.groups = {
      {.match = "blocks.1.*.bias", .weight_decay = 0.3},
      {.match = "blocks.*", .learning_rate_scale = 0.5, .weight_decay = {}}};
  return setup;
}

absl::StatusOr<std::vector<float>> Draw(RankModel& model) {
  const SamplerOptions options{
      .solver = Solver::kHeun, .steps = 2, .shift = 1, .guidance = 2};
  std::vector<Sample> prompts(kDrawn);
  for (int i = 0; i < kDrawn; ++i) prompts[i].class_id = i;
  std::vector<float> drawn;
  RETURN_IF_ERROR(model.Evaluate(
      /*averaged=*/true,
      [&](LocalModel& local, StageForward& forward) -> absl::Status {
        Sampler sampler(model.setup(), local, forward,
                        model.plan().microbatch_size());
        ASSIGN_OR_RETURN(drawn, sampler.Draw(options, /*seed=*/7, prompts));
        return absl::OkStatus();
      }));
  return drawn;
}

absl::StatusOr<double> Measure(RankModel& model, Batch batch) {
  batch.step = -1;
  const FirstSamples objective(*model.setup().objective, kMeasured);
  return LossOf(model, batch, objective);
}

Outcome Train(const GridCase& grid, bool evaluate) {
  const TrainingSetup setup = AveragedSetup(grid);
  const Plan plan = PlanOf(grid);
  const BatchSource source = RandomBatches(setup);
  RankModel::BetweenSteps rehearsal;
  if (evaluate) {
    rehearsal = [](RankModel& dry) -> absl::Status {
      Batch batch = dry.DryBatch();
      for (uint64_t& sample : batch.samples) sample = kMeasured;
      RETURN_IF_ERROR(Measure(dry, batch).status());
      return Draw(dry).status();
    };
  }
  std::mutex mutex;
  Outcome outcome;
  RunThreadRanks(
      static_cast<int>(grid.ranks()),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(int64_t{1} << 40);
        auto built = RankModel::Build(setup, plan, device, factory,
                                      RankModel::kNoLimit, rehearsal);
        CHECK_OK(built.status());
        RankModel& model = **built;
        const auto batch = [&](int64_t step) {
          return source(device, step, model.first_sample(), model.local_batch())
              .value();
        };
        Outcome own;
        for (int64_t step = 1; step <= kSteps; ++step) {
          const auto result =
              model.Step(batch(step), {.step = step, .learning_rate = 2e-3});
          CHECK_OK(result.status());
          own.training.push_back(result->loss);
          own.training.push_back(result->gradient_norm);
          if (!evaluate) continue;
          own.validation_loss = Measure(model, batch(1)).value();
          own.drawn = Draw(model).value();
        }
        const std::lock_guard lock(mutex);
        // Messages between stages are late or early.
        if (grid.pp == 1) {
          const auto predicted =
              static_cast<double>(model.predicted_memory().peak_bytes);
          EXPECT_NEAR(static_cast<double>(device.Statistics().peak_bytes),
                      predicted, 0.01 * predicted)
              << "rank " << rank;
        }
        if (rank == 0) outcome = own;
      });
  return outcome;
}

class EvaluationTest : public testing::TestWithParam<Case> {};

TEST_P(EvaluationTest, TrainingGoesOnToTheSameBits) {
  EXPECT_EQ(Train(GetParam().grid, true).training,
            Train(GetParam().grid, false).training);
}

TEST_P(EvaluationTest, EqualsThatOfOneRank) {
  const double tolerance = GetParam().tolerance;
  const Outcome expected = Train(OneRank(GetParam().grid), true);
  const Outcome found = Train(GetParam().grid, true);
  for (size_t i = 0; i < expected.training.size(); ++i) {
    EXPECT_NEAR(found.training[i], expected.training[i],
                tolerance * expected.training[i])
        << i;
  }
  EXPECT_GT(expected.validation_loss, 0);
  EXPECT_NEAR(found.validation_loss, expected.validation_loss,
              tolerance * expected.validation_loss);
  ASSERT_EQ(found.drawn.size(), expected.drawn.size());
  for (size_t i = 0; i < found.drawn.size(); ++i) {
    ASSERT_NEAR(found.drawn[i], expected.drawn[i],
                tolerance * (1 + std::abs(expected.drawn[i])))
        << i;
  }
}

// Samples are rounded to fp32 on their way.
constexpr double kFp64 = 1e-6;

INSTANTIATE_TEST_SUITE_P(
    Grids, EvaluationTest,
    testing::Values(
        Case{{.dtype = DType::kFloat32}, 0},
        Case{{.dtype = DType::kBFloat16,
              .plan = PlanFromText("microbatches: 2")},
             0.1},
        Case{{.pp = 2, .plan = PlanFromText("schedule: INTERLEAVED")}, kFp64},
        Case{{.tp = 2,
              .pp = 2,
              .text = Text::kJoint,
              .plan = PlanFromText("sequence_parallel: true")},
             kFp64},
        Case{{.cp = 2, .dp = 2}, kFp64},
        Case{{.dp = 2,
              .plan = PlanFromText("sharding: PARAMETERS microbatches: 2")},
             kFp64},
        Case{{.dp = 4, .plan = PlanFromText("sharding: OPTIMIZER")}, kFp64},
        Case{{.pp = 2, .plan = PlanFromText("offload { resident_units: 1 }")},
             kFp64},
        Case{{.dtype = DType::kBFloat16,
              .plan = PlanFromText(
                  "microbatches: 2 offload { resident_units: 2 }")},
             0.1}),
    [](const auto& info) { return info.param.grid.Name(); });

// A padding sample, or a value in place of its average, changes what is seen.
TEST(Evaluation, MeasuresAllSamplesAndDrawsWithTheAverage) {
  const GridCase grid;
  const TrainingSetup setup = AveragedSetup(grid);
  const BatchSource source = RandomBatches(setup);
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    CpuDevice device(int64_t{1} << 40);
    auto built = RankModel::Build(setup, PlanOf(grid), device, factory);
    CHECK_OK(built.status());
    RankModel& model = **built;
    const Batch batch = source(device, 1, 0, 8).value();
    for (int64_t step = 1; step <= kSteps; ++step) {
      CHECK_OK(
          model.Step(batch, {.step = step, .learning_rate = 1e-2}).status());
    }
    const auto loss_of = [&](int64_t count) {
      return LossOf(model, batch, FirstSamples(*setup.objective, count))
          .value();
    };
    const double all = loss_of(8);
    EXPECT_EQ(all, LossOf(model, batch, *setup.objective).value());
    EXPECT_EQ(loss_of(0), 0);
    double before = 0;
    for (int64_t count = 1; count <= 8; ++count) {
      EXPECT_GT(loss_of(count), before);
      before = loss_of(count);
    }
    double averaged = 0, plain = 0;
    for (double* loss : {&averaged, &plain}) {
      CHECK_OK(model.Evaluate(
          loss == &averaged,
          [&](LocalModel& local, StageForward& forward) -> absl::Status {
            local.inputs().Set(batch, *setup.objective);
            for (int64_t i = 0; i < 8 / model.plan().microbatch_size(); ++i) {
              for (const Tape::Loss& part : forward.Run(i)) {
                *loss += part.weight * part.value.ToVector<double>()[0];
              }
            }
            return absl::OkStatus();
          }));
    }
    EXPECT_EQ(plain, all);
    EXPECT_NE(averaged, all);
  });
}

}  // namespace
}  // namespace trireme
