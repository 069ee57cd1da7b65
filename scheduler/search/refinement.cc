#include "scheduler/search/refinement.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/core/status.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/placement/placed_steps.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

// Of placing a plan and cutting it anew.
constexpr int kPlacingTurns = 3;
// More hide little else.
constexpr int32_t kMaxRowChunks = 8;

}  // namespace

int64_t InstructionsOf(const Program& program) {
  int64_t count = 0;
  for (const auto& list : program.ranks) {
    count += static_cast<int64_t>(list.size());
  }
  return count;
}

absl::Status PlanRefinement::Improve(RankedPlan& ranked) const {
  const auto attempt = [&](auto change) -> absl::Status {
    Candidate candidate = ranked.candidate;
    change(candidate);
    Plan plan = ranked.plan;
    SetRefinements(candidate, plan);
    if (!ValidatePlan(plan, ContextOf(model_, cluster_, global_batch_)).ok()) {
      return absl::OkStatus();
    }
    const double before = ranked.estimate.step_s;
    RETURN_IF_ERROR(TakeIfFaster(plan, ranked));
    if (ranked.estimate.step_s >= before) return absl::OkStatus();
    ranked.candidate = candidate;
    ranked.candidate.step_s = ranked.estimate.step_s;
    return absl::OkStatus();
  };
  const auto attempt_field = [&](int32_t Candidate::*field, int32_t value) {
    return attempt([&](Candidate& candidate) { candidate.*field = value; });
  };
  const auto dp = static_cast<int32_t>(ranked.plan.grid().dp());
  const auto pp = static_cast<int32_t>(ranked.plan.grid().pp());
  const auto ep = static_cast<int32_t>(ranked.plan.grid().ep());
  for (int32_t group = dp / 2;
       group > 1 && ranked.plan.sharding() != Plan::REPLICATED; --group) {
    if (dp % group != 0) continue;
    RETURN_IF_ERROR(attempt_field(&Candidate::shard_group, group));
  }
  for (int32_t chunks = 2; chunks <= kMaxRowChunks && ep > 1; chunks *= 2) {
    RETURN_IF_ERROR(attempt_field(&Candidate::row_chunks, chunks));
  }
  const auto sharers =
      static_cast<int32_t>(ep / std::max<int64_t>(1, model_.experts));
  for (int32_t copies = sharers / 2; copies > 0; --copies) {
    if (sharers % copies != 0) continue;
    RETURN_IF_ERROR(attempt_field(&Candidate::row_copies, copies));
  }
  for (int32_t ranks = 2; ranks < ep; ++ranks) {
    if (ep % ranks != 0) continue;
    RETURN_IF_ERROR(attempt([&](Candidate& candidate) {
      candidate.node_ranks = ranks;
      candidate.row_chunks = 0;
    }));
  }
  if (ep > 1) {
    RETURN_IF_ERROR(attempt([](Candidate& candidate) {
      candidate.expert_move = Plan::Experts::WEIGHTS;
      candidate.row_chunks = candidate.row_copies = candidate.node_ranks = 0;
    }));
  }
  int32_t most = 0;
  for (const Plan::Stage& stage : ranked.plan.stages()) {
    most = std::max(most, static_cast<int32_t>(stage.blocks()));
  }
  for (int32_t eighths = 1;
       eighths < 8 && ranked.plan.recompute() == Plan::FULL; ++eighths) {
    const int32_t blocks = most * eighths / 8;
    if (blocks == 0) continue;
    RETURN_IF_ERROR(attempt_field(&Candidate::recompute_blocks, blocks));
  }
  for (int32_t factor = 2;
       factor <= 4 && ScheduleOf(ranked.plan).groups_microbatches;
       factor *= 2) {
    RETURN_IF_ERROR(attempt_field(&Candidate::microbatch_group, factor * pp));
  }
  const auto resident =
      static_cast<int32_t>(ranked.plan.offload().resident_units());
  for (const int32_t units : {resident + 1, resident + 2, 2 * resident, most}) {
    if (!ranked.plan.has_offload() || units > most) continue;
    RETURN_IF_ERROR(attempt_field(&Candidate::resident_units, units));
  }
  // What is free on the devices takes a part of what the host has to do.
  for (int32_t eighths = 1; eighths < 8 && ranked.plan.has_offload();
       ++eighths) {
    const int32_t blocks = most * eighths / 8;
    if (blocks == 0) continue;
    RETURN_IF_ERROR(attempt_field(&Candidate::device_blocks, blocks));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PlanRefinement::Place(const PlacementOptions& placement,
                                              int64_t work,
                                              RankedPlan& ranked) {
  int64_t used = 0;
  Plan plan = ranked.plan;
  for (int turn = 0; turn < kPlacingTurns; ++turn) {
    PlacedSteps steps(model_, cluster_, plan);
    PlacementOptions options = placement;
    // As many as a half of the work can simulate.
    options.keep = static_cast<int32_t>(std::clamp<int64_t>(
        work / 2 / kPlacingTurns /
            std::max<int64_t>(1, InstructionsOf(ranked.estimate.program)),
        options.keep,
        std::max<int64_t>(options.keep, options.exhaustive_limit)));
    const Placement found = PlaceRanks(model_, cluster_, plan, options);
    std::vector<std::vector<int32_t>> starts = found.ranked;
    starts.emplace_back(plan.placement().begin(), plan.placement().end());
    ASSIGN_OR_RETURN(const RefinedPlacement refined,
                     RefinePlacement(steps, cluster_, starts, found.unit_ranks,
                                     work / kPlacingTurns));
    used += steps.work();
    PlaceAt(refined.physical, plan);
    RETURN_IF_ERROR(TakeIfFaster(plan, ranked));
    const auto uncut = plan.SerializeAsString();
    RETURN_IF_ERROR(cutter_.Cut(PlanCoster(model_, cluster_, plan), plan));
    // The cut goes with this placement already.
    if (plan.SerializeAsString() == uncut) break;
    RETURN_IF_ERROR(TakeIfFaster(plan, ranked));
  }
  return used;
}

absl::Status PlanRefinement::TakeIfFaster(const Plan& plan,
                                          RankedPlan& ranked) const {
  ASSIGN_OR_RETURN(Estimate estimate, EstimatePlan(model_, cluster_, plan));
  if (IsFaster(estimate.step_s, ranked.estimate.step_s) && Fits(estimate)) {
    ranked.plan = plan;
    ranked.estimate = std::move(estimate);
  }
  return absl::OkStatus();
}

}  // namespace trireme
