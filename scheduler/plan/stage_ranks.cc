#include "scheduler/plan/stage_ranks.h"

#include "runtime/core/log.h"

namespace trireme {

int64_t RanksOfStage(const Plan& plan, int64_t stage) {
  const auto& stage_ranks = plan.skip().stage_ranks();
  if (!stage_ranks.empty()) return stage_ranks[static_cast<int>(stage)];
  const Plan::Grid& grid = plan.grid();
  return int64_t{grid.tp()} * grid.cp() * grid.dp();
}

int64_t FirstRankOfStage(const Plan& plan, int64_t stage) {
  int64_t first = 0;
  for (int64_t s = 0; s < stage; ++s) first += RanksOfStage(plan, s);
  return first;
}

int64_t NumRanks(const Plan& plan) {
  return FirstRankOfStage(plan, plan.grid().pp());
}

int64_t StageOfRank(const Plan& plan, int64_t logical_rank) {
  CHECK_GE(logical_rank, 0);
  int64_t first = 0;
  for (int64_t stage = 0; stage < plan.grid().pp(); ++stage) {
    first += RanksOfStage(plan, stage);
    if (logical_rank < first) return stage;
  }
  CHECK(false) << "rank " << logical_rank << " of " << first;
  return -1;
}

}  // namespace trireme
