// What a plan says, in the terms of models/ and parallel/.

#ifndef TRIREME_TRAINER_RANK_PLAN_TRANSLATION_H_
#define TRIREME_TRAINER_RANK_PLAN_TRANSLATION_H_

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/family.h"
#include "parallel/grid/expert_exchange.h"
#include "parallel/grid/process_grid.h"
#include "parallel/sharding/data_sharding.h"
#include "scheduler/partial/timing.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// All plans are resolved.
BlockRange BlocksOfStage(const Plan& plan, int stage);
// Of all blocks.
BlockRecompute RecomputeOf(Plan::Recompute recompute);
BlockRecompute RecomputeOf(const Plan& plan);
DataSharding ShardingOf(const Plan& plan);
ExpertExchange ExpertExchangeOf(const Plan& plan, const ModelFamily& family);
// The ranks that share one of its experts.
int SlicesOf(const ModelFamily& family, int64_t ep);
// As seen from one rank of the world.
absl::StatusOr<ProcessGrid> GridOf(const Plan& plan, int world_rank);

// Of a partial pipeline: every pair of logical ranks that a path joins, in one
// order for all ranks.
std::vector<std::pair<int, int>> SkipChannels(const SkipSchedule& schedule);
// Microbatches that visit the rank in a step.
int VisitsOf(const SkipSchedule& schedule, int logical_rank);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_PLAN_TRANSLATION_H_
