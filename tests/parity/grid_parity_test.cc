// Every tp × pp × dp grid on up to 8 ranks, on heads and a batch that its tp
// and dp divide, gives the losses and gradients of one rank. Ranks are threads
// of this process; tests/multirank runs some of the same grids as processes.
//
// At check-in a selection runs in which any two features that meet in the whole
// list meet (covering.h); `./dev test --config=full` runs the whole.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "tests/parity/covering.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class GridParityTest : public testing::TestWithParam<GridCase> {
 protected:
  static void TearDownTestSuite() { references_ = {}; }
  inline static References references_;
};

TEST_P(GridParityTest, LossesAndGradientsEqualOneRank) {
  const GridCase grid = GetParam();
  const ParityReport report = Compare(references_.Of(grid), Record(grid));
  const ParityTolerance tolerance = ToleranceOf(grid.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
}

// Those of `cases` that this run tests.
std::vector<GridCase> Selected(const std::vector<GridCase>& cases) {
  if (TestsEveryCase()) return cases;
  std::vector<CoveringCase> known;
  for (const GridCase& grid : cases) {
    known.push_back({.features = grid.Features(),
                     .cost = static_cast<double>(grid.ranks())});
  }
  std::vector<GridCase> selected;
  for (const size_t i : CoverPairs(known)) selected.push_back(cases[i]);
  return selected;
}

// The largest multiple of `factor` that is at most `most`.
int64_t MultipleNear(int64_t most, int64_t factor) {
  return most / factor * factor;
}

std::vector<GridCase> AllGrids() {
  std::vector<GridCase> cases;
  for (uint32_t tp = 1; tp <= 8; ++tp) {
    for (uint32_t pp = 1; tp * pp <= 8; ++pp) {
      for (uint32_t dp = 1; tp * pp * dp <= 8; ++dp) {
        if (tp * pp * dp == 1) continue;
        cases.push_back({.tp = tp,
                         .pp = pp,
                         .dp = dp,
                         .layers = std::max<int64_t>(4, pp),
                         .heads = MultipleNear(8, tp),
                         .batch = MultipleNear(8, dp)});
      }
    }
  }
  for (const Text text : {Text::kCross, Text::kJoint}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .text = text});
    cases.push_back({.tp = 4, .pp = 1, .dp = 1, .text = text});
    cases.push_back({.tp = 1, .pp = 4, .dp = 1, .text = text});
  }
  for (const DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
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
  // Context parallelism by ring, by head exchange, and by both.
  for (const uint32_t cp : {2, 4, 8}) {
    for (const uint32_t ulysses : {1, 2, 4, 8}) {
      if (ulysses > cp) continue;
      Plan plan;
      plan.set_ulysses(ulysses);
      for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
        // 3 x 4 tokens, so that the last of 8 ranks have padding only.
        cases.push_back({.cp = cp, .text = text, .height = 6, .plan = plan});
      }
    }
  }
  for (const char* plan :
       {"recompute: FULL", "sequence_parallel: true",
        "ulysses: 2 sequence_parallel: true recompute: SELECTIVE"}) {
    for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
      cases.push_back({.tp = 2,
                       .cp = 2,
                       .pp = 2,
                       .text = text,
                       .height = 6,
                       .plan = PlanFromText(plan)});
      cases.push_back({.cp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .plan = PlanFromText(plan)});
    }
  }
  // Schedules, with uneven stages and several chunks per rank.
  for (const char* plan :
       {"schedule: INTERLEAVED", "schedule: INTERLEAVED chunks_per_rank: 3",
        "schedule: INTERLEAVED microbatch_group: 4 microbatches: 4",
        "schedule: ZB_H1", "schedule: ZB_V",
        "schedule: ZB_V sequence_parallel: true recompute: FULL"}) {
    for (const Text text : {Text::kNone, Text::kJoint}) {
      cases.push_back(
          {.pp = 2, .text = text, .layers = 7, .plan = PlanFromText(plan)});
      cases.push_back({.tp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .layers = 6,
                       .plan = PlanFromText(plan)});
    }
  }
  // Other embeddings of positions, and queries and keys without their norm.
  for (const bool sincos : {true, false}) {
    const Dit::Positions positions = sincos ? Dit::SINCOS : Dit::ROPE;
    for (const Text text : {Text::kNone, Text::kJoint}) {
      cases.push_back({.tp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .positions = positions,
                       .qk_norm = sincos,
                       .plan = PlanFromText("sequence_parallel: true")});
      cases.push_back({.cp = 4,
                       .pp = 2,
                       .text = text,
                       .height = 6,
                       .positions = positions,
                       .qk_norm = sincos,
                       .plan = PlanFromText("ulysses: 2 recompute: FULL")});
    }
  }
  return cases;
}

// Some of each mode in fp32, where a sum in too low a precision would show.
std::vector<GridCase> Fp32Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.dtype = DType::kFloat32;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({.tp = 4, .dp = 2});
  add({.tp = 2, .pp = 2, .dp = 2, .text = Text::kJoint});
  // On 4 rows the samples of this job multiply cross-attention's rounding by a
  // thousand (2e-13 in fp64).
  add({.tp = 2, .pp = 2, .dp = 2, .text = Text::kCross, .height = 6});
  add({}, "microbatches: 8");
  add({.tp = 4}, "sequence_parallel: true");
  add({.tp = 2, .pp = 2, .text = Text::kJoint},
      "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 4, .height = 6});
  add({.cp = 4, .text = Text::kJoint, .height = 6});
  add({.cp = 4, .height = 6}, "ulysses: 4");
  add({.cp = 4, .text = Text::kJoint, .height = 6}, "ulysses: 2");
  add({.tp = 2, .cp = 2, .pp = 2}, "sequence_parallel: true recompute: FULL");
  add({.pp = 4, .dp = 2}, "schedule: GPIPE");
  add({.pp = 4, .text = Text::kJoint});
  add({.pp = 2, .dp = 2, .layers = 6},
      "schedule: INTERLEAVED chunks_per_rank: 3");
  add({.tp = 2, .pp = 4}, "schedule: ZB_H1");
  add({.tp = 2, .pp = 2, .text = Text::kJoint}, "schedule: ZB_V");
  add({.dp = 8}, "sharding: OPTIMIZER shard_group: 4");
  add({.cp = 2, .pp = 2, .dp = 2}, "sharding: GRADIENTS");
  add({.tp = 2, .dp = 4}, "sharding: PARAMETERS");
  add({.pp = 2, .dp = 2, .text = Text::kJoint},
      "sharding: PARAMETERS schedule: ZB_V");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Fp32, GridParityTest,
                         testing::ValuesIn(Selected(Fp32Grids())),
                         [](const auto& info) { return info.param.Name(); });

INSTANTIATE_TEST_SUITE_P(Grids, GridParityTest,
                         testing::ValuesIn(Selected(AllGrids())),
                         [](const auto& info) { return info.param.Name(); });

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
