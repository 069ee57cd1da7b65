// Every tp × pp × dp grid on up to 8 ranks (tp and dp in powers of two, which
// divide the heads and the batch) gives the losses and gradients of one rank.
// Ranks are threads of this process; tests/multirank runs some of the same
// grids as processes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class GridParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(GridParityTest, LossesAndGradientsEqualOneRank) {
  const GridCase grid = GetParam();
  const ParityReport report = Compare(Record(OneRank(grid)), Record(grid));
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
  for (const char* plan : {"schedule: GPIPE", "recompute: FULL"}) {
    cases.push_back({.tp = 2, .pp = 2, .plan = PlanFromText(plan)});
  }
  cases.push_back({.plan = PlanFromText("microbatches: 4")});
  cases.push_back(
      {.pp = 2,
       .plan = PlanFromText("stages { blocks: 1 } stages { blocks: 3 }")});
  // Sequence parallelism; 4 x 3 tokens over 8 ranks leave a rank with padding
  // only.
  for (const char* plan :
       {"sequence_parallel: true",
        "sequence_parallel: true recompute: SELECTIVE",
        "sequence_parallel: true recompute: FULL recompute_blocks: 1"}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .plan = PlanFromText(plan)});
    cases.push_back({.tp = 8, .height = 6, .plan = PlanFromText(plan)});
    for (const Text text : {Text::kCross, Text::kJoint}) {
      cases.push_back(
          {.tp = 4, .pp = 2, .text = text, .plan = PlanFromText(plan)});
    }
  }
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
      base.plan.set_microbatches(4);
      const GridRecord reference = Record(base);
      for (const Plan::Recompute recompute :
           {Plan::NONE, Plan::SELECTIVE, Plan::FULL}) {
        for (const uint32_t pp : {1, 2, 4}) {
          GridCase grid = base;
          grid.pp = pp;
          grid.plan.set_recompute(recompute);
          grid.plan.set_schedule(pp == 4 ? Plan::GPIPE : Plan::ONE_F_ONE_B);
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
