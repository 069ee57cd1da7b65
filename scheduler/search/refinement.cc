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

void SetExperts(Plan& plan, Plan::Experts::Move move, uint32_t chunks,
                uint32_t row_copies) {
  Plan::Experts& experts = *plan.mutable_experts();
  experts.set_move(move);
  experts.set_node_ranks(1);
  experts.set_max_load(0);
  experts.set_chunks(chunks);
  experts.set_shadowed(0);
  experts.set_row_copies(row_copies);
  experts.set_deduplicate(false);
}

}  // namespace

int64_t InstructionsOf(const Program& program) {
  int64_t count = 0;
  for (const auto& list : program.ranks) {
    count += static_cast<int64_t>(list.size());
  }
  return count;
}

absl::Status PlanRefinement::Improve(RankedPlan& ranked) const {
  const auto dp = static_cast<int32_t>(ranked.plan.grid().dp());
  const auto pp = static_cast<int32_t>(ranked.plan.grid().pp());
  const auto attempt = [&](int32_t Candidate::*field, int32_t value,
                           auto set) -> absl::Status {
    Plan plan = ranked.plan;
    plan.clear_predicted();
    set(plan, static_cast<uint32_t>(value));
    if (!ValidatePlan(plan, ContextOf(model_, cluster_, global_batch_)).ok()) {
      return absl::OkStatus();
    }
    const double before = ranked.estimate.step_s;
    RETURN_IF_ERROR(TakeIfFaster(plan, ranked));
    if (ranked.estimate.step_s >= before) return absl::OkStatus();
    ranked.candidate.*field = value;
    ranked.candidate.step_s = ranked.estimate.step_s;
    *ranked.plan.mutable_predicted() =
        PredictionOf(ranked.plan, ranked.estimate);
    return absl::OkStatus();
  };
  for (int32_t group = dp / 2;
       group > 1 && ranked.plan.sharding() != Plan::REPLICATED; --group) {
    if (dp % group != 0) continue;
    RETURN_IF_ERROR(attempt(
        &Candidate::shard_group, group,
        [](Plan& plan, uint32_t value) { plan.set_shard_group(value); }));
  }
  for (int32_t chunks = 2;
       chunks <= kMaxRowChunks && ranked.plan.grid().ep() > 1; chunks *= 2) {
    RETURN_IF_ERROR(
        attempt(&Candidate::row_chunks, chunks, [](Plan& plan, uint32_t value) {
          SetExperts(plan, Plan::Experts::ROWS, value, /*row_copies=*/0);
        }));
  }
  const auto sharers = static_cast<int32_t>(
      ranked.plan.grid().ep() / std::max<int64_t>(1, model_.experts));
  for (int32_t copies = sharers / 2; copies > 0; --copies) {
    if (sharers % copies != 0) continue;
    RETURN_IF_ERROR(
        attempt(&Candidate::row_copies, copies, [](Plan& plan, uint32_t value) {
          SetExperts(plan, Plan::Experts::ROWS,
                     std::max(1U, plan.experts().chunks()), value);
        }));
  }
  const auto ep = static_cast<int32_t>(ranked.plan.grid().ep());
  for (int32_t ranks = 2; ranks < ep; ++ranks) {
    if (ep % ranks != 0) continue;
    RETURN_IF_ERROR(
        attempt(&Candidate::node_ranks, ranks, [](Plan& plan, uint32_t value) {
          SetExperts(plan, Plan::Experts::ROWS, /*chunks=*/1,
                     plan.experts().row_copies());
          plan.mutable_experts()->set_node_ranks(value);
          plan.mutable_experts()->set_deduplicate(true);
        }));
  }
  if (ranked.plan.grid().ep() > 1) {
    RETURN_IF_ERROR(attempt(&Candidate::expert_move, Plan::Experts::WEIGHTS,
                            [](Plan& plan, uint32_t value) {
                              SetExperts(
                                  plan, static_cast<Plan::Experts::Move>(value),
                                  /*chunks=*/1, /*row_copies=*/0);
                            }));
    ranked.candidate.row_chunks =
        static_cast<int32_t>(ranked.plan.experts().chunks());
    ranked.candidate.row_copies =
        static_cast<int32_t>(ranked.plan.experts().row_copies());
    ranked.candidate.node_ranks =
        ranked.plan.experts().deduplicate()
            ? static_cast<int32_t>(ranked.plan.experts().node_ranks())
            : 0;
  }
  int32_t most = 0;
  for (const Plan::Stage& stage : ranked.plan.stages()) {
    most = std::max(most, static_cast<int32_t>(stage.blocks()));
  }
  for (int32_t eighths = 1;
       eighths < 8 && ranked.plan.recompute() == Plan::FULL; ++eighths) {
    const int32_t blocks = most * eighths / 8;
    if (blocks == 0) continue;
    RETURN_IF_ERROR(attempt(
        &Candidate::recompute_blocks, blocks,
        [](Plan& plan, uint32_t value) { plan.set_recompute_blocks(value); }));
  }
  for (int32_t factor = 2;
       factor <= 4 && ScheduleOf(ranked.plan).groups_microbatches;
       factor *= 2) {
    RETURN_IF_ERROR(attempt(
        &Candidate::microbatch_group, factor * pp,
        [](Plan& plan, uint32_t value) { plan.set_microbatch_group(value); }));
  }
  const auto resident =
      static_cast<int32_t>(ranked.plan.offload().resident_units());
  for (const int32_t units : {resident + 1, resident + 2, 2 * resident, most}) {
    if (!ranked.plan.has_offload() || units > most) continue;
    RETURN_IF_ERROR(attempt(&Candidate::resident_units, units,
                            [](Plan& plan, uint32_t value) {
                              plan.mutable_offload()->set_resident_units(value);
                            }));
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
