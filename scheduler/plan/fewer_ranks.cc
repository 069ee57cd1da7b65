#include "scheduler/plan/fewer_ranks.h"

#include <algorithm>
#include <cstdint>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// The plan without what only its own number of ranks fits.
Plan WithoutSizes(const Plan& plan) {
  Plan kept = plan;
  kept.clear_placement();
  kept.clear_predicted();
  kept.clear_shard_group();
  if (kept.has_experts()) {
    kept.mutable_experts()->clear_choices();
    kept.mutable_experts()->clear_tuned_for();
  }
  // Fewer ranks have larger shards, of blocks that stay on a device too.
  if (kept.has_offload()) kept.mutable_offload()->clear_device_blocks();
  if (kept.has_microbatch_size()) kept.clear_microbatches();
  return kept;
}

// Its grid with as many replicas as there are ranks for.
std::optional<Plan> WithFewerReplicas(const Plan& plan,
                                      const PlanContext& context) {
  Plan fewer = WithoutSizes(plan);
  Plan::Grid& grid = *fewer.mutable_grid();
  const auto size = [](uint32_t axis) { return std::max<int64_t>(axis, 1); };
  const int64_t of_replica =
      size(grid.tp()) * size(grid.cp()) * size(grid.pp());
  if (context.world_size % of_replica != 0) return std::nullopt;
  grid.set_dp(static_cast<uint32_t>(context.world_size / of_replica));
  const absl::StatusOr<Plan> resolved = ResolvePlan(fewer, context);
  if (!resolved.ok()) return std::nullopt;
  return *resolved;
}

// Another grid for what else the plan says.
std::optional<Plan> WithGrid(const Plan& plan, const Plan::Grid& grid,
                             const PlanContext& context) {
  Plan other = WithoutSizes(plan);
  *other.mutable_grid() = grid;
  other.clear_stages();
  const absl::StatusOr<Plan> resolved = ResolvePlan(other, context);
  if (!resolved.ok()) return std::nullopt;
  return *resolved;
}

}  // namespace

absl::StatusOr<DefaultedPlan> PlanForFewerRanks(const std::optional<Plan>& plan,
                                                const PlanContext& context) {
  // A partial pipeline is part of what is trained.
  const bool skips = plan.has_value() && plan->has_skip();
  PlanContext fewer = context;
  for (;; --fewer.world_size) {
    std::optional<Plan> found;
    if (plan.has_value()) found = WithFewerReplicas(*plan, fewer);
    const absl::StatusOr<DefaultedPlan> by_rule = DefaultPlan(fewer);
    if (!found.has_value() && by_rule.ok() && !skips) {
      if (plan.has_value()) {
        found = WithGrid(*plan, by_rule->plan.grid(), fewer);
      }
      if (!found.has_value()) found = by_rule->plan;
    }
    if (found.has_value()) {
      return DefaultedPlan{
          .plan = *found,
          .explanation =
              fmt::format("{} of {} ranks that are left: {}", fewer.world_size,
                          context.world_size, Summary(*found))};
    }
    if (fewer.world_size > 1) continue;
    RETURN_IF_ERROR(by_rule.status());
    return FailedPrecondition(
        "plan.skip: found {} ranks left, expected those of whole replicas: "
        "another pipeline would train something else",
        context.world_size);
  }
}

}  // namespace trireme
