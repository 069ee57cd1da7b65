// Which ranks hold which pipeline stage. Stages follow one another in the
// numbering of logical ranks: tp * cp * dp ranks each or, in a partial pipeline
// with `stage_ranks`, as many as these say (tp = cp = 1; grid.dp is then the
// first stage's). Of plans with one chunk a rank. Pure; any thread.

#ifndef TRIREME_SCHEDULER_PLAN_STAGE_RANKS_H_
#define TRIREME_SCHEDULER_PLAN_STAGE_RANKS_H_

#include <cstdint>

#include "scheduler/plan/plan.pb.h"

namespace trireme {

// Ranks of the plan in all.
int64_t NumRanks(const Plan& plan);

int64_t RanksOfStage(const Plan& plan, int64_t stage);
int64_t FirstRankOfStage(const Plan& plan, int64_t stage);
// `logical_rank` is below NumRanks.
int64_t StageOfRank(const Plan& plan, int64_t logical_rank);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLAN_STAGE_RANKS_H_
