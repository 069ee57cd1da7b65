// Every tp × pp × dp grid on up to 8 ranks (tp and dp in powers of two, which
// divide the heads and the batch) gives the losses and gradients of one rank.
// Ranks are threads of this process; tests/multirank runs some of the same
// grids as processes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan.h"
#include "trainer/parity.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 3;
constexpr int64_t kGlobalBatch = 8;

enum class Text { kNone, kCross, kJoint };

TrainingSetup TinySetup(DType dtype, Text text, int64_t layers) {
  TrainingSetup setup;
  setup.model.hidden = 32;
  setup.model.layers = layers;
  setup.model.heads = 8;
  setup.model.mlp_hidden = 64;
  setup.model.classes = 10;
  setup.model.image = {.channels = 2, .height = 8, .width = 8};
  if (text != Text::kNone) {
    setup.model.text_tokens = 5;
    setup.model.text_width = 6;
    setup.model.text_attention = text == Text::kCross ? Dit::CROSS : Dit::JOINT;
  }
  setup.learning_rate.peak = 2e-3;
  setup.dtype = dtype;
  setup.seed = 7;
  setup.global_batch = kGlobalBatch;
  return setup;
}

// Random pictures, labels and texts, keyed by sample.
BatchSource RandomBatches(const TrainingSetup& setup) {
  return [setup](Device& device, int64_t step, int64_t first,
                 int64_t count) -> absl::StatusOr<ImageBatch> {
    const ImageSpec& image = setup.model.image;
    const int64_t elements = image.channels * image.height * image.width;
    ImageBatch batch;
    batch.step = step;
    std::vector<float> pixels(count * elements);
    std::vector<int32_t> labels(count);
    const int64_t text_elements =
        setup.model.text_tokens * setup.model.text_width;
    std::vector<float> text(count * text_elements);
    std::vector<int32_t> text_counts(count);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t sample = (step - 1) * setup.global_batch + first + i;
      batch.sample_indices.push_back(sample);
      const RandomStream random({.seed = 99, .sample = sample});
      random.FillNormal(
          0, std::span<float>(pixels.data() + i * elements, elements));
      random.FillNormal(
          elements,
          std::span<float>(text.data() + i * text_elements, text_elements));
      labels[i] =
          static_cast<int32_t>(random.Bits(100000) % setup.model.classes);
      if (setup.model.text_tokens > 0) {
        text_counts[i] = static_cast<int32_t>(random.Bits(200000) %
                                              (setup.model.text_tokens + 1));
      }
    }
    batch.pixels = Tensor::FromValues<float>(
        device, {count, image.channels, image.height, image.width}, pixels);
    batch.labels = Tensor::FromValues<int32_t>(device, {count}, labels);
    if (setup.model.text_tokens > 0) {
      batch.text = Tensor::FromValues<float>(
          device, {count, setup.model.text_tokens, setup.model.text_width},
          text);
      batch.text_counts =
          Tensor::FromValues<int32_t>(device, {count}, text_counts);
    }
    return batch;
  };
}

struct GridCase {
  uint32_t tp = 1;
  uint32_t pp = 1;
  uint32_t dp = 1;
  DType dtype = DType::kFloat64;
  Text text = Text::kNone;
  Plan::Schedule schedule = Plan::ONE_F_ONE_B;
  Plan::Recompute recompute = Plan::NONE;
  uint32_t microbatches = 0;  // 0: the plan's default
  std::vector<uint32_t> stages;
  int64_t layers = 4;

  std::string Name() const {
    std::string name =
        fmt::format("tp{}_pp{}_dp{}_{}", tp, pp, dp, DTypeName(dtype));
    if (text != Text::kNone) {
      name += text == Text::kCross ? "_cross" : "_joint";
    }
    if (schedule == Plan::GPIPE) name += "_gpipe";
    if (recompute == Plan::FULL) name += "_recompute";
    if (microbatches > 0) name += fmt::format("_mb{}", microbatches);
    for (const uint32_t blocks : stages) name += fmt::format("_{}", blocks);
    return name;
  }
};

Plan PlanOf(const GridCase& grid, const TrainingSetup& setup) {
  Plan plan;
  plan.mutable_grid()->set_tp(grid.tp);
  plan.mutable_grid()->set_pp(grid.pp);
  plan.mutable_grid()->set_dp(grid.dp);
  plan.set_schedule(grid.schedule);
  plan.set_recompute(grid.recompute);
  if (grid.microbatches > 0) plan.set_microbatches(grid.microbatches);
  for (const uint32_t blocks : grid.stages) {
    plan.add_stages()->set_blocks(blocks);
  }
  // Small enough that there are several buckets.
  plan.set_gradient_bucket_bytes(16 << 10);
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = grid.tp * grid.pp * grid.dp,
                         .global_batch = setup.global_batch,
                         .num_blocks = setup.model.layers,
                         .heads = setup.model.heads});
  CHECK_OK(resolved.status());
  return *resolved;
}

GridRecord Record(const GridCase& grid) {
  const TrainingSetup setup = TinySetup(grid.dtype, grid.text, grid.layers);
  const absl::StatusOr<GridRecord> record = RecordGridOnThreads(
      setup, PlanOf(grid, setup), RandomBatches(setup), kSteps);
  CHECK_OK(record.status());
  return *record;
}

ParityReport Compare(const GridRecord& reference, const GridRecord& record) {
  const absl::StatusOr<ParityReport> report = CompareRecords(reference, record);
  CHECK_OK(report.status());
  return *report;
}

class GridParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(GridParityTest, LossesAndGradientsEqualOneRank) {
  const GridCase grid = GetParam();
  GridCase reference;
  reference.dtype = grid.dtype;
  reference.text = grid.text;
  reference.layers = grid.layers;
  const ParityReport report = Compare(Record(reference), Record(grid));
  const ParityTolerance tolerance = ToleranceOf(grid.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
}

std::vector<GridCase> AllGrids() {
  std::vector<GridCase> cases;
  for (const uint32_t tp : {1, 2, 4, 8}) {
    for (const uint32_t pp : {1, 2, 3, 4, 5, 6, 7, 8}) {
      for (const uint32_t dp : {1, 2, 4, 8}) {
        if (tp * pp * dp > 8 || tp * pp * dp == 1) continue;
        cases.push_back(
            {.tp = tp, .pp = pp, .dp = dp, .layers = std::max<int64_t>(4, pp)});
      }
    }
  }
  for (const Text text : {Text::kCross, Text::kJoint}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .text = text});
    cases.push_back({.tp = 4, .pp = 1, .dp = 1, .text = text});
    cases.push_back({.tp = 1, .pp = 4, .dp = 1, .text = text});
  }
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .dtype = dtype});
  }
  cases.push_back({.tp = 2, .pp = 2, .schedule = Plan::GPIPE});
  cases.push_back({.tp = 2, .pp = 2, .recompute = Plan::FULL});
  cases.push_back({.tp = 1, .pp = 1, .microbatches = 4});
  cases.push_back({.pp = 2, .stages = {1, 3}});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, GridParityTest, testing::ValuesIn(AllGrids()),
                         [](const auto& info) { return info.param.Name(); });

// Where only the pipeline, its schedule or recompute differ, not one bit may.
TEST(BitwiseParityTest, PipelineScheduleAndRecomputeChangeNoBit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Text text : {Text::kNone, Text::kJoint}) {
      GridCase base;
      base.dtype = dtype;
      base.text = text;
      base.microbatches = 4;
      const GridRecord reference = Record(base);
      for (const bool recompute : {false, true}) {
        for (const uint32_t pp : {1, 2, 4}) {
          GridCase grid = base;
          grid.pp = pp;
          grid.recompute = recompute ? Plan::FULL : Plan::NONE;
          grid.schedule = pp == 4 ? Plan::GPIPE : Plan::ONE_F_ONE_B;
          const ParityReport report = Compare(reference, Record(grid));
          EXPECT_TRUE(report.bitwise) << grid.Name() << "\n"
                                      << ParityText(report, {}, 5);
        }
      }
    }
  }
}

// The harness itself: a wrong gradient must be seen.
TEST(ParityReportTest, SeesOneWrongElement) {
  GridRecord reference;
  reference.steps.push_back(
      {.loss = 1.0,
       .gradient_norm = 1.0,
       .gradients = {{"a", {1.0, 2.0, 3.0}}, {"b", {1.0}}}});
  GridRecord record = reference;
  EXPECT_TRUE(Compare(reference, record).bitwise);
  record.steps[0].gradients[1].values[0] = 1.001;
  const ParityReport report = Compare(reference, record);
  EXPECT_FALSE(report.bitwise);
  EXPECT_EQ(report.rows[0].parameter, "b");
  EXPECT_NEAR(report.worst_gradient_error(), 1e-3, 1e-9);
  record.steps[0].gradients[1].values[0] = std::nan("");
  EXPECT_EQ(Compare(reference, record).worst_gradient_error(),
            std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace trireme
