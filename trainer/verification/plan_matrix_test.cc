// `trireme verify --ranks N` misses no grid and no mode that a plan can say: a
// fault in a mode that the list lacks would go unseen.

#include "trainer/verification/plan_matrix.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <tuple>

#include "gtest/gtest.h"

namespace trireme {
namespace {

constexpr PlanContext kTiny = {.global_batch = 16, .num_blocks = 8, .heads = 8};

bool Any(const PlanMatrix& matrix,
         const std::function<bool(const Plan&)>& holds) {
  return std::any_of(
      matrix.entries.begin(), matrix.entries.end(),
      [&](const PlanMatrix::Entry& entry) { return holds(entry.plan); });
}

TEST(PlanMatrixTest, HasEveryGridThatTheModelAndTheBatchAllow) {
  const PlanMatrix matrix = MakePlanMatrix(kTiny, 8);
  EXPECT_GE(matrix.entries.size(), 60);
  std::set<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>> grids;
  for (const PlanMatrix::Entry& entry : matrix.entries) {
    const Plan::Grid& grid = entry.plan.grid();
    EXPECT_LE(GridSize(grid), 8);
    grids.emplace(grid.tp(), grid.cp(), grid.pp(), grid.dp());
  }
  size_t expected = 0;
  for (const uint32_t tp : {1, 2, 4, 8}) {
    for (const uint32_t dp : {1, 2, 4, 8}) {
      for (uint32_t cp = 1; cp <= 8; ++cp) {
        for (uint32_t pp = 1; tp * dp * cp * pp <= 8; ++pp) {
          ++expected;
          EXPECT_TRUE(grids.contains({tp, cp, pp, dp}))
              << "tp " << tp << " cp " << cp << " pp " << pp << " dp " << dp;
        }
      }
    }
  }
  EXPECT_EQ(grids.size(), expected);
}

TEST(PlanMatrixTest, DividesExpertsOnEveryGridThatCan) {
  PlanContext context = kTiny;
  EXPECT_FALSE(Any(MakePlanMatrix(context, 4),
                   [](const Plan& plan) { return plan.grid().ep() > 1; }));
  context.experts = 2;
  const PlanMatrix matrix = MakePlanMatrix(context, 4);
  std::set<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>> grids;
  for (const PlanMatrix::Entry& entry : matrix.entries) {
    const Plan::Grid& grid = entry.plan.grid();
    if (grid.ep() == 1) continue;
    EXPECT_EQ(grid.ep() % 2, 0);
    EXPECT_EQ(grid.tp() * grid.cp() * grid.dp() % 2, 0);
    grids.emplace(grid.tp(), grid.cp(), grid.pp(), grid.dp());
  }
  using Grid = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>;
  for (const Grid& grid : {Grid{2, 1, 1, 1}, Grid{1, 2, 1, 1}, Grid{1, 1, 1, 2},
                           Grid{2, 1, 1, 2}, Grid{1, 1, 2, 2}}) {
    EXPECT_TRUE(grids.contains(grid));
  }
}

// What moves changes no bit: plans that differ in it alone are of one kind.
TEST(PlanMatrixTest, MovesRowsAndWeightsWhereExpertsAreDivided) {
  PlanContext context = kTiny;
  context.experts = 4;
  const PlanMatrix matrix = MakePlanMatrix(context, 4);
  for (const Plan::Experts::Move move :
       {Plan::Experts::ROWS, Plan::Experts::WEIGHTS, Plan::Experts::ADAPTIVE}) {
    EXPECT_TRUE(Any(matrix, [move](const Plan& plan) {
      return plan.has_experts() && plan.experts().move() == move;
    })) << Plan::Experts::Move_Name(move);
  }
  // And changes between them.
  EXPECT_TRUE(Any(matrix, [](const Plan& plan) {
    return plan.experts().choices_size() == 3;
  }));
  EXPECT_TRUE(Any(matrix, [](const Plan& plan) {
    return plan.experts().node_ranks() == 2;
  }));
  for (const Plan::Sharding sharding :
       {Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
    EXPECT_TRUE(Any(matrix, [sharding](const Plan& plan) {
      return plan.grid().ep() > 1 && plan.grid().dp() > 1 &&
             plan.has_offload() && plan.sharding() == sharding;
    })) << Plan::Sharding_Name(sharding);
  }
  EXPECT_TRUE(Any(matrix, [](const Plan& plan) {
    return plan.grid().ep() > 1 && plan.grid().cp() > 1 && plan.has_offload();
  }));
}

TEST(PlanMatrixTest, RowsGoToAnyNumberOfAnExpertsRanks) {
  PlanContext context = kTiny;
  context.experts = 2;
  context.expert_hidden = 24;
  const PlanMatrix matrix = MakePlanMatrix(context, 8);
  for (const uint32_t copies : {1U, 2U}) {
    const auto found =
        std::find_if(matrix.entries.begin(), matrix.entries.end(),
                     [&](const PlanMatrix::Entry& entry) {
                       return entry.plan.grid().ep() == 8 &&
                              entry.plan.experts().row_copies() == copies;
                     });
    ASSERT_NE(found, matrix.entries.end()) << copies;
    // Bits are those of rows that go to all.
    EXPECT_GE(found->same_bits_as, 0) << copies;
  }
}

TEST(PlanMatrixTest, HasNoPlanTwice) {
  const PlanMatrix matrix = MakePlanMatrix(kTiny, 8);
  std::set<std::string> plans;
  for (const PlanMatrix::Entry& entry : matrix.entries) {
    EXPECT_TRUE(plans.insert(entry.plan.SerializeAsString()).second)
        << Summary(entry.plan);
  }
}

TEST(PlanMatrixTest, HasEveryMode) {
  const PlanMatrix matrix = MakePlanMatrix(kTiny, 8);
  for (const Plan::Schedule schedule :
       {Plan::GPIPE, Plan::ONE_F_ONE_B, Plan::INTERLEAVED, Plan::ZB_H1,
        Plan::ZB_V}) {
    EXPECT_TRUE(Any(matrix, [&](const Plan& plan) {
      return plan.grid().pp() > 1 && plan.schedule() == schedule;
    })) << Plan::Schedule_Name(schedule);
  }
  for (const Plan::Sharding sharding :
       {Plan::REPLICATED, Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
    const std::string name = Plan::Sharding_Name(sharding);
    EXPECT_TRUE(Any(matrix, [&](const Plan& plan) {
      return plan.grid().dp() > 1 && plan.grid().pp() == 1 &&
             plan.sharding() == sharding;
    })) << name;
    EXPECT_TRUE(Any(matrix,
                    [&](const Plan& plan) {
                      return plan.grid().dp() > 1 && plan.grid().pp() > 1 &&
                             plan.sharding() == sharding;
                    }))
        << name << " under pp";
    if (sharding == Plan::REPLICATED) continue;
    EXPECT_TRUE(Any(matrix,
                    [&](const Plan& plan) {
                      return plan.sharding() == sharding &&
                             plan.shard_group() > 1 &&
                             plan.shard_group() < plan.grid().dp();
                    }))
        << "hybrid " << name;
  }
  const std::pair<const char*, std::function<bool(const Plan&)>> modes[] = {
      {"accumulation",
       [](const Plan& p) {
         return p.grid().pp() == 1 && p.microbatches() > 1;
       }},
      {"uneven stages",
       [](const Plan& p) {
         return p.stages_size() > 1 &&
                p.stages(0).blocks() + 1 < p.stages(1).blocks();
       }},
      {"3 chunks a rank",
       [](const Plan& p) { return p.chunks_per_rank() == 3; }},
      {"a larger microbatch group",
       [](const Plan& p) { return p.microbatch_group() > p.grid().pp(); }},
      {"sequence parallelism",
       [](const Plan& p) { return p.sequence_parallel(); }},
      {"offload with blocks' inputs",
       [](const Plan& p) { return p.offload().activations(); }},
      {"offload but for blocks that stay",
       [](const Plan& p) { return p.offload().device_blocks() > 0; }},
      {"offload under tp and pp",
       [](const Plan& p) {
         return p.has_offload() && p.grid().tp() > 1 && p.grid().pp() > 1;
       }},
      {"ring attention",
       [](const Plan& p) { return p.grid().cp() > 1 && p.ulysses() == 1; }},
      {"head exchange",
       [](const Plan& p) {
         return p.grid().cp() > 1 && p.ulysses() == p.grid().cp();
       }},
      {"ring and head exchange",
       [](const Plan& p) {
         return p.ulysses() > 1 && p.ulysses() < p.grid().cp();
       }},
      {"bf16 messages",
       [](const Plan& p) { return p.bf16_gradient_messages(); }},
      {"selective recompute",
       [](const Plan& p) { return p.recompute() == Plan::SELECTIVE; }},
      {"full recompute",
       [](const Plan& p) {
         return p.recompute() == Plan::FULL && !p.has_recompute_blocks();
       }},
      {"recompute of the first blocks",
       [](const Plan& p) { return p.has_recompute_blocks(); }},
      {"tensor, sequence, pipeline and sharded data parallelism together",
       [](const Plan& p) {
         return p.sequence_parallel() && p.grid().pp() > 1 &&
                p.sharding() == Plan::PARAMETERS;
       }},
      {"context, pipeline and sharded data parallelism together",
       [](const Plan& p) {
         return p.ulysses() > 1 && p.grid().pp() > 1 &&
                p.sharding() == Plan::GRADIENTS;
       }},
  };
  for (const auto& [name, holds] : modes) {
    EXPECT_TRUE(Any(matrix, holds)) << name;
  }
}

// Only such plans may be held to equal bits.
TEST(PlanMatrixTest, ComparesBitsWherePipelineScheduleOrRecomputeDiffer) {
  const PlanMatrix matrix = MakePlanMatrix(kTiny, 8);
  int64_t compared = 0;
  for (size_t i = 0; i < matrix.entries.size(); ++i) {
    const auto& [plan, base] = matrix.entries[i];
    if (base < 0) continue;
    ++compared;
    ASSERT_LT(base, static_cast<int64_t>(i));
    EXPECT_EQ(matrix.entries[base].same_bits_as, -1);
    const Plan& other = matrix.entries[base].plan;
    EXPECT_EQ(plan.grid().tp(), other.grid().tp());
    EXPECT_EQ(plan.grid().cp(), other.grid().cp());
    EXPECT_EQ(plan.grid().dp(), other.grid().dp());
    EXPECT_EQ(plan.microbatch_size(), other.microbatch_size());
    EXPECT_EQ(plan.sequence_parallel(), other.sequence_parallel());
    EXPECT_EQ(plan.ulysses(), other.ulysses());
    EXPECT_EQ(plan.sharding(), other.sharding());
    EXPECT_EQ(plan.shard_group(), other.shard_group());
    EXPECT_EQ(plan.bf16_gradient_messages(), other.bf16_gradient_messages());
  }
  EXPECT_GT(compared, static_cast<int64_t>(matrix.entries.size()) / 2);
}

TEST(PlanMatrixTest, SaysWhatItLeavesOutAndWhy) {
  const PlanMatrix matrix =
      MakePlanMatrix({.global_batch = 6, .num_blocks = 4, .heads = 3}, 4);
  EXPECT_TRUE(matrix.left_out.contains(
      "plan.grid.tp: found 2, expected a divisor of the model's 3 attention "
      "heads"));
  EXPECT_TRUE(matrix.left_out.contains(
      "plan.grid.dp: found 4, expected a divisor of the global batch of 6"));
  for (const auto& [reason, count] : matrix.left_out) {
    EXPECT_GE(count, 1) << reason;
  }
  // A batch that leaves no rank a sample of its own.
  EXPECT_GT(MakePlanMatrix({.global_batch = 1, .num_blocks = 1, .heads = 1}, 8)
                .entries.size(),
            1);
}

}  // namespace
}  // namespace trireme
