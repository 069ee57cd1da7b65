// Every grid (grids.h) gives the losses and gradients of one rank. Ranks are
// threads of this process; tests/multirank runs some of the same grids as
// processes.
//
// At check-in a selection runs in which any two features that meet in the whole
// list meet (covering.h); `./dev test --config=full` runs the whole.

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "tests/parity/covering.h"
#include "tests/parity/grids.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class GridParityTest : public ParityTest {};

TEST_P(GridParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Fp32, GridParityTest,
                         testing::ValuesIn(Selected(Fp32Grids())), &NameOfCase);

INSTANTIATE_TEST_SUITE_P(Grids, GridParityTest,
                         testing::ValuesIn(Selected(AllGrids())), &NameOfCase);

// Where only the pipeline, its schedule or recompute differ from a case on one
// stage, not one bit may.
struct BitwiseCase {
  GridCase base;
  GridCase grid;
};

class BitwiseParityTest : public testing::TestWithParam<BitwiseCase> {
 protected:
  static void TearDownTestSuite() { bases_.clear(); }
  inline static std::map<std::string, GridRecord> bases_;
};

TEST_P(BitwiseParityTest, PipelineScheduleAndRecomputeChangeNoBit) {
  const BitwiseCase& both = GetParam();
  const auto [base, is_new] = bases_.try_emplace(both.base.Name());
  if (is_new) base->second = Record(both.base);
  const ParityReport report = Compare(base->second, Record(both.grid));
  EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
}

std::vector<BitwiseCase> Selected(const std::vector<BitwiseCase>& cases) {
  if (TestsEveryCase()) return cases;
  std::vector<CoveringCase> known;
  for (const BitwiseCase& both : cases) {
    known.push_back({.features = both.grid.Features(),
                     .cost = static_cast<double>(both.grid.ranks())});
  }
  std::vector<BitwiseCase> selected;
  for (const size_t i : CoverPairs(known)) selected.push_back(cases[i]);
  return selected;
}

std::vector<BitwiseCase> PipelineCases() {
  std::vector<BitwiseCase> cases;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Text text : {Text::kNone, Text::kJoint}) {
      GridCase base{.dtype = dtype, .text = text};
      base.plan.set_microbatches(4);
      for (const Plan::Recompute recompute :
           {Plan::NONE, Plan::SELECTIVE, Plan::FULL}) {
        for (const auto& [pp, schedule] :
             {std::pair(1, Plan::ONE_F_ONE_B), std::pair(2, Plan::ONE_F_ONE_B),
              std::pair(4, Plan::GPIPE), std::pair(2, Plan::INTERLEAVED),
              std::pair(4, Plan::ZB_H1), std::pair(2, Plan::ZB_V)}) {
          GridCase grid = base;
          grid.pp = pp;
          grid.plan.set_recompute(recompute);
          grid.plan.set_schedule(schedule);
          cases.push_back({base, grid});
        }
      }
    }
  }
  return cases;
}

// The same where tensors and batches are shared as well, alike on both.
std::vector<BitwiseCase> SharedCases() {
  std::vector<BitwiseCase> cases;
  for (GridCase base :
       {GridCase{.tp = 2}, GridCase{.cp = 2},
        GridCase{.dp = 2, .plan = PlanFromText("sharding: OPTIMIZER")},
        GridCase{.dp = 2, .plan = PlanFromText("sharding: PARAMETERS")}}) {
    base.dtype = DType::kFloat32;
    base.layers = 6;
    base.plan.set_microbatches(4);
    for (const Text text : {Text::kNone, Text::kJoint}) {
      base.text = text;
      for (const auto& [pp, plan] : {
               std::pair(1, "recompute: SELECTIVE"),
               std::pair(2, "recompute: FULL recompute_blocks: 1"),
               std::pair(2, "stages { blocks: 1 } stages { blocks: 5 }"),
               std::pair(4, "schedule: GPIPE"),
               std::pair(2, "schedule: INTERLEAVED chunks_per_rank: 3"),
               std::pair(2, "schedule: INTERLEAVED microbatch_group: 4"),
               std::pair(4, "schedule: ZB_H1 recompute: SELECTIVE"),
               std::pair(2, "schedule: ZB_V recompute: FULL"),
           }) {
        GridCase grid = base;
        grid.pp = pp;
        grid.plan.MergeFrom(PlanFromText(plan));
        cases.push_back({base, grid});
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, BitwiseParityTest,
                         testing::ValuesIn(Selected(PipelineCases())),
                         [](const auto& info) {
                           return info.param.grid.Name();
                         });

INSTANTIATE_TEST_SUITE_P(Shared, BitwiseParityTest,
                         testing::ValuesIn(Selected(SharedCases())),
                         [](const auto& info) {
                           return info.param.grid.Name();
                         });

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
