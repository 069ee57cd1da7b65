// Partial pipelines: microbatches that skip and swap stages train what a
// one-process model trains whose skipped layers are masked, and where nothing
// is skipped, what the ordinary pipeline trains, bit for bit.

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/partial/route.h"
#include "scheduler/plan/plan.h"
#include "tests/parity/tiny_job.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/rank/rank_model.h"
#include "trainer/verification/skip_reference.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 3;

// With weight decay, which moves parameters that have no gradient, and with
// gradients that are clipped in every step, by a norm that depends on all.
TrainingSetup StrictSetup(const GridCase& grid) {
  TrainingSetup setup = SetupOf(grid);
  setup.optimizer.weight_decay = 0.1;
  setup.optimizer.clip_norm = 0.01;
  return setup;
}

GridRecord RecordRanks(const GridCase& grid) {
  const TrainingSetup setup = StrictSetup(grid);
  const auto record =
      RecordGridOnThreads(setup, PlanOf(grid), RandomBatches(setup), kSteps);
  CHECK_OK(record.status());
  return *record;
}

GridRecord RecordMasked(const GridCase& grid) {
  const TrainingSetup setup = StrictSetup(grid);
  CpuDevice device(int64_t{1} << 40);
  const auto record = RecordSkipReference(setup, PlanOf(grid), device,
                                          RandomBatches(setup), kSteps);
  CHECK_OK(record.status());
  return *record;
}

// The parameters after `steps` steps, by name.
std::map<std::string, std::vector<double>> ParametersAfter(const GridCase& grid,
                                                           int64_t steps) {
  const TrainingSetup setup = StrictSetup(grid);
  const Plan plan = PlanOf(grid);
  std::mutex mutex;
  std::map<std::string, std::vector<double>> parameters;
  RunThreadRanks(
      static_cast<int>(grid.pp * grid.dp),
      [&](CommunicatorFactory& factory, int) {
        CpuDevice device(int64_t{1} << 40);
        const auto model = RankModel::Build(setup, plan, device, factory);
        CHECK_OK(model.status());
        const BatchSource source = RandomBatches(setup);
        for (int64_t step = 1; step <= steps; ++step) {
          const auto batch = source(device, step, (*model)->first_sample(),
                                    (*model)->local_batch());
          CHECK_OK(batch.status());
          CHECK_OK((*model)
                       ->Step(*batch,
                              {.step = step,
                               .learning_rate = setup.learning_rate.At(step)})
                       .status());
        }
        auto gather =
            LogicalGather::Create((*model)->context(), (*model)->MasterParts());
        CHECK_OK(gather.status());
        gather->Run([&](const SafetensorsEntry& info, const Tensor& whole) {
          const std::lock_guard lock(mutex);
          parameters[info.name] = ToDoubles(whole);
        });
      });
  return parameters;
}

class NothingSkippedTest : public testing::TestWithParam<GridCase> {};

TEST_P(NothingSkippedTest, ChangesNoBit) {
  GridCase ordinary = GetParam();
  GridCase partial = ordinary;
  partial.plan.mutable_skip();
  for (const Plan::Schedule schedule : {Plan::GPIPE, Plan::ONE_F_ONE_B}) {
    ordinary.plan.set_schedule(schedule);
    const ParityReport report =
        Compare(RecordRanks(ordinary), RecordRanks(partial));
    EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
    EXPECT_EQ(report.worst_norm_error, 0);
  }
  EXPECT_EQ(ParametersAfter(ordinary, kSteps),
            ParametersAfter(partial, kSteps));
}

std::vector<GridCase> OrdinaryCases() {
  std::vector<GridCase> cases;
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat64, DType::kBFloat16}) {
    cases.push_back({.pp = 2, .dtype = dtype});
    cases.push_back({.pp = 4, .dtype = dtype});
    cases.push_back({.pp = 3, .dtype = dtype, .text = Text::kCross});
    cases.push_back({.pp = 2, .dp = 2, .dtype = dtype});
    cases.push_back({.pp = 2,
                     .dtype = dtype,
                     .plan = PlanFromText("recompute: FULL microbatches: 4")});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, NothingSkippedTest,
                         testing::ValuesIn(OrdinaryCases()),
                         [](const auto& info) { return info.param.Name(); });

GridCase Partial(GridCase grid, const char* plan) {
  grid.plan = PlanFromText(plan);
  return grid;
}

class MaskedModelTest : public testing::TestWithParam<GridCase> {};

TEST_P(MaskedModelTest, LossesAndGradientsAreEqual) {
  const GridCase grid = GetParam();
  const ParityReport report = Compare(RecordMasked(grid), RecordRanks(grid));
  const ParityTolerance tolerance = ToleranceOf(grid.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << Summary(PlanOf(grid)) << "\n"
                                         << ParityText(report, tolerance, 10);
}

// Visits 0, 1 or 2 of stage 1 to 3, some out of order; no rank has all.
constexpr char kSwapped[] =
    "microbatches: 4 skip { stages_per_microbatch: 3 swaps: true "
    "  paths { ranks: [0, 2, 1] } paths { ranks: [0, 1, 3] } "
    "  paths { ranks: [0, 3, 2] } paths { ranks: [0, 1, 2] } ";
// Of two replicas only some ranks are visited, and replicas cross.
constexpr char kCrossing[] =
    "microbatches: 4 skip { stages_per_microbatch: 2 "
    "  paths { ranks: [0, 2] } paths { ranks: [0, 4] } "
    "  paths { ranks: [0, 2] } paths { ranks: [0, 4] } "
    "  paths { ranks: [1, 2] } paths { ranks: [1, 4] } "
    "  paths { ranks: [1, 5] } paths { ranks: [1, 2] } ";
// Stage 3 is never visited.
constexpr char kUnvisited[] =
    "microbatches: 4 skip { stages_per_microbatch: 2 "
    "  paths { ranks: [0, 1] } paths { ranks: [0, 2] } "
    "  paths { ranks: [0, 1] } paths { ranks: [0, 1] } ";

std::vector<GridCase> MaskedCases() {
  std::vector<GridCase> cases;
  for (const std::string divisor :
       {"divisor: VISITS }", "divisor: MICROBATCHES }"}) {
    // Paths found by search.
    for (const char* plan :
         {"microbatches: 8 skip { stages_per_microbatch: 3 ",
          "microbatches: 8 skip { stages_per_microbatch: 4 swaps: true ",
          "microbatches: 8 skip { stages_per_microbatch: 2 slots: 0 "}) {
      cases.push_back(
          Partial({.pp = 5, .layers = 6}, (plan + divisor).c_str()));
    }
    cases.push_back(Partial({.pp = 4}, (kSwapped + divisor).c_str()));
    cases.push_back(Partial({.pp = 4}, (kUnvisited + divisor).c_str()));
    cases.push_back(Partial({.pp = 3, .dp = 2}, (kCrossing + divisor).c_str()));
  }
  const std::string swapped = std::string(kSwapped) + "}";
  cases.push_back(Partial({.pp = 4, .text = Text::kCross}, swapped.c_str()));
  // What blocks attend to reaches whoever is visited last.
  cases.push_back(
      Partial({.pp = 4, .sparse_dit = CrossCondition::Kind::kFeatures},
              swapped.c_str()));
  cases.push_back(Partial({.pp = 4}, ("recompute: FULL " + swapped).c_str()));
  // Scales of FP8 are those that microbatches needed of which it was visited.
  cases.push_back(
      Partial({.pp = 4, .fp8 = true, .delayed = true}, swapped.c_str()));
  cases.push_back(
      Partial({.pp = 4, .dtype = DType::kFloat32}, swapped.c_str()));
  cases.push_back(
      Partial({.pp = 4, .dtype = DType::kFloat16}, swapped.c_str()));
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Plans, MaskedModelTest,
                         testing::ValuesIn(MaskedCases()),
                         [](const auto& info) {
                           return fmt::format("{}_{}", info.param.Name(),
                                              info.index);
                         });

// Stages of 3, 2 and 2 ranks, some microbatches swapped, one rank unvisited:
// data follows the first stage's ranks, each stage's gradient is the sum over
// its own.
TEST(SkipTest, StagesOfUnlikeNumbersOfRanksEqualTheMaskedModel) {
  for (const char* skip :
       {"microbatches: 2 skip { stage_ranks: [3, 2, 2] "
        "  stages_per_microbatch: 2 }",
        "microbatches: 2 skip { stage_ranks: [3, 2, 2] swaps: true "
        "  paths { ranks: [0, 3, 5] } paths { ranks: [0, 6, 4] } "
        "  paths { ranks: [1, 4, 6] } paths { ranks: [1, 3, 5] } "
        "  paths { ranks: [2, 5, 4] } paths { ranks: [2, 3, 6] } }",
        "microbatches: 2 skip { stage_ranks: [3, 2, 2] "
        "  paths { ranks: [0, 3, 5] } paths { ranks: [0, 3, 6] } "
        "  paths { ranks: [1, 3, 6] } paths { ranks: [1, 3, 5] } "
        "  paths { ranks: [2, 3, 5] } paths { ranks: [2, 3, 6] } }"}) {
    TrainingSetup setup = StrictSetup({});
    setup.global_batch = 12;
    Plan plan = PlanFromText(skip);
    plan.set_gradient_bucket_bytes(16 << 10);
    const auto resolved =
        ResolvePlan(plan, {.world_size = 7,
                           .global_batch = 12,
                           .num_blocks = setup.family->Shape().layers,
                           .heads = setup.family->Shape().heads});
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    const auto ranks =
        RecordGridOnThreads(setup, *resolved, RandomBatches(setup), kSteps);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    CpuDevice device(int64_t{1} << 40);
    const auto masked = RecordSkipReference(setup, *resolved, device,
                                            RandomBatches(setup), kSteps);
    ASSERT_TRUE(masked.ok()) << masked.status();
    const ParityReport report = Compare(*masked, *ranks);
    const ParityTolerance tolerance = ToleranceOf(setup.dtype);
    EXPECT_TRUE(Within(report, tolerance)) << Summary(*resolved) << "\n"
                                           << ParityText(report, tolerance, 10);
  }
}

// `trireme plan --route --without`: a lost rank, then a lost stage with it, and
// the job goes on without them.
TEST(SkipTest, PathsAroundLostRanksEqualTheMaskedModel) {
  const GridCase grid =
      Partial({.pp = 4, .dp = 2},
              "microbatches: 2 skip { stages_per_microbatch: 3 swaps: true }");
  const TrainingSetup setup = StrictSetup(grid);
  const auto described = DescribeCluster({.nodes = 2, .devices_per_node = 4});
  ASSERT_TRUE(described.ok()) << described.status();
  const auto cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  for (const std::vector<int32_t>& lost :
       {std::vector<int32_t>{3}, std::vector<int32_t>{3, 4, 5}}) {
    const auto routed = RouteSkips(ModelShapeOf(setup), *cluster, PlanOf(grid),
                                   {.evaluations = 500}, lost);
    ASSERT_TRUE(routed.ok()) << routed.status();
    for (const Plan::Skip::Path& path : routed->plan.skip().paths()) {
      for (const uint32_t rank : path.ranks()) {
        ASSERT_EQ(std::count(lost.begin(), lost.end(), rank), 0);
      }
    }
    const auto ranks =
        RecordGridOnThreads(setup, routed->plan, RandomBatches(setup), kSteps);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    CpuDevice device(int64_t{1} << 40);
    const auto masked = RecordSkipReference(setup, routed->plan, device,
                                            RandomBatches(setup), kSteps);
    ASSERT_TRUE(masked.ok()) << masked.status();
    const ParityReport report = Compare(*masked, *ranks);
    const ParityTolerance tolerance = ToleranceOf(setup.dtype);
    EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
  }
}

// What a stage's gradients are divided by shows in them: the comparison above
// would see a forgotten division.
TEST(SkipTest, TheDivisorMatters) {
  const GridCase visits =
      Partial({.pp = 4}, (std::string(kSwapped) + "}").c_str());
  GridCase all = visits;
  all.plan.mutable_skip()->set_divisor(Plan::Skip::MICROBATCHES);
  const ParityReport report = Compare(RecordMasked(visits), RecordRanks(all));
  EXPECT_NEAR(report.losses[0], report.reference_losses[0], 1e-12);
  EXPECT_GT(report.worst_gradient_error(), 0.1);
}

TEST(SkipTest, AStageWithoutVisitsKeepsItsParameters) {
  const GridCase grid =
      Partial({.pp = 4}, (std::string(kUnvisited) + "}").c_str());
  const auto before = ParametersAfter(grid, 0);
  const auto after = ParametersAfter(grid, kSteps);
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, values] : after) {
    if (name.starts_with("blocks.3.")) {
      EXPECT_EQ(values, before.at(name)) << name;
    } else if (name.ends_with(".weight")) {
      EXPECT_NE(values, before.at(name)) << name;
    }
  }
}

}  // namespace
}  // namespace trireme
