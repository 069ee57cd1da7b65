#include <algorithm>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "scheduler/partial/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "scheduler/plan/validation.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

constexpr uint64_t kLeastBucketBytes = uint64_t{32} << 20;
constexpr uint64_t kBucketBytesPerRank = uint64_t{4} << 20;
// One that computes, and the next on its way.
constexpr int64_t kDefaultResidentUnits = 2;
// More than any machine has; what is listed by rank stays small.
constexpr int64_t kMaxRanks = int64_t{1} << 20;

void FillGrid(Plan& plan) {
  Plan::Grid& grid = *plan.mutable_grid();
  const auto& stage_ranks = plan.skip().stage_ranks();
  if (!grid.has_tp()) grid.set_tp(1);
  if (!grid.has_cp()) grid.set_cp(1);
  if (!grid.has_ep()) grid.set_ep(1);
  if (!grid.has_dp()) grid.set_dp(stage_ranks.empty() ? 1 : stage_ranks[0]);
  if (!grid.has_pp()) grid.set_pp(std::max(1, stage_ranks.size()));
}

// The least divisor of n that is at least `least`; n if there is none.
int64_t LeastDivisor(int64_t n, int64_t least) {
  int64_t best = n;
  for (int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    if (d >= least) best = std::min(best, d);
    if (n / d >= least) best = std::min(best, n / d);
  }
  return best;
}

// Sets microbatches and microbatch_size where left out. Microbatches that do
// not divide the batch are left for ValidatePlan to refuse.
absl::Status ResolveMicrobatches(Plan& plan, int64_t global_batch) {
  const int64_t local_batch = global_batch / plan.grid().dp();
  if (!plan.has_microbatches()) {
    int64_t count = 1;
    if (plan.has_microbatch_size()) {
      const int64_t size = plan.microbatch_size();
      if (size < 1 || local_batch % size != 0) {
        return PlanFieldError("microbatch_size", size,
                              DivisorOfBatch(plan.grid(), global_batch));
      }
      count = local_batch / size;
    } else if (plan.grid().pp() > 1) {
      count = LeastDivisor(local_batch, int64_t{4} * plan.grid().pp());
    }
    plan.set_microbatches(count);
  }
  if (!plan.has_microbatch_size() && plan.microbatches() > 0) {
    plan.set_microbatch_size(local_batch / plan.microbatches());
  }
  return absl::OkStatus();
}

// Blocks of each of so many stages, as if all blocks cost the same.
std::vector<int64_t> StagesOfBlocks(const Plan& plan,
                                    const PlanContext& context,
                                    int64_t stages) {
  const Plan::Skip& skip = plan.skip();
  const int64_t visited =
      skip.has_stages_per_microbatch() ? skip.stages_per_microbatch() : stages;
  const bool alike = visited == stages && skip.stage_ranks().empty();
  if (stages < 2 || visited < 2 || visited > stages || alike) {
    return EvenStages(context.num_blocks, stages);
  }
  std::vector<int64_t> ranks;
  for (int64_t stage = 0; stage < stages; ++stage) {
    ranks.push_back(RanksOfStage(plan, stage));
  }
  return SkipStages(context.num_blocks, ranks, visited);
}

// Blocks of each stage where the plan says nothing.
absl::StatusOr<std::vector<int64_t>> DefaultStages(const Plan& plan,
                                                   const PlanContext& context,
                                                   int64_t stages) {
  if (!context.costs.has_value() || plan.has_skip() ||
      plan.chunks_per_rank() > 1) {
    return StagesOfBlocks(plan, context, stages);
  }
  CHECK_EQ(static_cast<int64_t>(context.costs->blocks.size()),
           context.num_blocks);
  std::vector<StageLocation> locations(stages);
  for (int64_t stage = 0; stage < stages; ++stage) {
    locations[stage].rank = static_cast<int32_t>(stage);
  }
  return PartitionStages(*context.costs, locations);
}

}  // namespace

absl::StatusOr<int64_t> RanksOf(const Plan& plan) {
  Plan filled = plan;
  FillGrid(filled);
  const Plan::Grid& grid = filled.grid();
  for (const auto& [name, size] : AxesOf(grid)) {
    if (size < 1 || size > kMaxRanks) {
      return PlanFieldError(fmt::format("grid.{}", name), size,
                            fmt::format("1 to {}", kMaxRanks));
    }
  }
  int64_t ranks = 0;
  if (filled.skip().stage_ranks().empty()) {
    ranks = 1;
    // Left as soon as it is too large, so that it cannot overflow.
    for (const uint32_t size : {grid.tp(), grid.cp(), grid.dp(), grid.pp()}) {
      if (ranks <= kMaxRanks) ranks *= size;
    }
    if (ranks > kMaxRanks) {
      return PlanFieldError(
          "grid",
          fmt::format("tp {} * cp {} * dp {} * pp {}", grid.tp(), grid.cp(),
                      grid.dp(), grid.pp()),
          fmt::format("at most {} ranks", kMaxRanks));
    }
    return ranks;
  }
  for (const uint32_t stage : filled.skip().stage_ranks()) ranks += stage;
  if (ranks < 1 || ranks > kMaxRanks) {
    return PlanFieldError("skip.stage_ranks", fmt::format("{} in all", ranks),
                          fmt::format("1 to {}", kMaxRanks));
  }
  return ranks;
}

absl::StatusOr<Plan> ResolvePlan(const Plan& plan, const PlanContext& context) {
  RETURN_IF_ERROR(ValidateContext(context));
  Plan resolved = plan;
  if (!resolved.has_version()) resolved.set_version(kPlanVersion);
  Plan::Grid& grid = *resolved.mutable_grid();
  FillGrid(resolved);
  // What follows divides by the grid's sizes and makes lists of them.
  RETURN_IF_ERROR(ValidateGrid(resolved, context));
  if (resolved.placement().empty()) {
    for (int64_t rank = 0; rank < context.world_size; ++rank) {
      resolved.add_placement(rank);
    }
  }
  if (resolved.schedule() == Plan::SCHEDULE_UNSPECIFIED) {
    resolved.set_schedule(Plan::ONE_F_ONE_B);
  }
  RETURN_IF_ERROR(ResolveMicrobatches(resolved, context.global_batch));
  // What is no schedule ValidateSchedule refuses.
  if (const Schedule* schedule = FindSchedule(resolved.schedule())) {
    if (!resolved.has_chunks_per_rank()) {
      resolved.set_chunks_per_rank(schedule->default_chunks);
    }
    if (schedule->groups_microbatches && !resolved.has_microbatch_group()) {
      resolved.set_microbatch_group(grid.pp());
    }
  }
  // Before a list of stages is made.
  RETURN_IF_ERROR(ValidateSchedule(resolved));
  if (resolved.stages().empty()) {
    const int64_t stages = int64_t{grid.pp()} * resolved.chunks_per_rank();
    if (stages > context.num_blocks) {
      return PlanFieldError(
          "grid.pp",
          resolved.chunks_per_rank() == 1
              ? fmt::format("{}", grid.pp())
              : fmt::format("{} (with chunks_per_rank {})", grid.pp(),
                            resolved.chunks_per_rank()),
          fmt::format("at most the model's {} blocks", context.num_blocks));
    }
    ASSIGN_OR_RETURN(const std::vector<int64_t> cut,
                     DefaultStages(resolved, context, stages));
    for (const int64_t blocks : cut) resolved.add_stages()->set_blocks(blocks);
  }
  if (!resolved.has_sequence_parallel()) resolved.set_sequence_parallel(false);
  if (resolved.has_experts()) {
    Plan::Experts& experts = *resolved.mutable_experts();
    if (experts.move() == Plan::Experts::MOVE_UNSPECIFIED) {
      experts.set_move(Plan::Experts::ROWS);
    }
    if (!experts.has_node_ranks()) experts.set_node_ranks(1);
    if (!experts.has_max_load()) experts.set_max_load(0);
    if (!experts.has_chunks()) experts.set_chunks(1);
    if (!experts.has_shadowed()) experts.set_shadowed(0);
    if (!experts.has_row_copies()) experts.set_row_copies(0);
    if (!experts.has_deduplicate()) experts.set_deduplicate(false);
  }
  if (!resolved.has_ulysses()) resolved.set_ulysses(1);
  if (resolved.sharding() == Plan::SHARDING_UNSPECIFIED) {
    // A rank keeps its own share of what is offloaded.
    resolved.set_sharding(resolved.has_offload() && grid.dp() > 1
                              ? Plan::PARAMETERS
                              : Plan::REPLICATED);
  }
  if (!resolved.has_shard_group()) resolved.set_shard_group(grid.dp());
  if (!resolved.has_bf16_gradient_messages()) {
    resolved.set_bf16_gradient_messages(false);
  }
  if (resolved.reduce_order() == Plan::REDUCE_ORDER_UNSPECIFIED) {
    resolved.set_reduce_order(Plan::RANKS);
  }
  if (resolved.recompute() == Plan::RECOMPUTE_UNSPECIFIED) {
    resolved.set_recompute(Plan::NONE);
  }
  if (resolved.has_offload() && !resolved.offload().has_resident_units()) {
    const std::vector<int64_t> blocks = BlocksOfRanks(resolved);
    resolved.mutable_offload()->set_resident_units(
        std::min<int64_t>(kDefaultResidentUnits,
                          *std::max_element(blocks.begin(), blocks.end())));
  }
  if (!resolved.has_gradient_bucket_bytes()) {
    resolved.set_gradient_bucket_bytes(
        std::clamp(kBucketBytesPerRank * grid.dp() * grid.cp(),
                   kLeastBucketBytes, kMaxBucketBytes));
  }
  RETURN_IF_ERROR(ValidatePlan(resolved, context));
  if (resolved.has_skip()) RETURN_IF_ERROR(ResolveSkip(resolved));
  return resolved;
}

absl::StatusOr<DefaultedPlan> DefaultPlan(const PlanContext& context) {
  RETURN_IF_ERROR(ValidateContext(context));
  constexpr std::array<std::pair<int64_t, int64_t>, 4> kTpPp = {
      {{2, 2}, {2, 1}, {1, 2}, {1, 1}}};
  for (const auto& [tp, pp] : kTpPp) {
    if (context.world_size % (tp * pp) != 0) continue;
    if (tp > 1 && (context.heads == 0 || context.heads % tp != 0)) continue;
    if (context.mlp_hidden % tp != 0 || context.shared_hidden % tp != 0) {
      continue;
    }
    if (pp > 1 && context.num_blocks < 2 * pp) continue;
    const int64_t dp = context.world_size / (tp * pp);
    if (context.global_batch % dp != 0) continue;
    if (pp > 1 && context.global_batch / dp < 2) continue;
    Plan plan;
    plan.mutable_grid()->set_tp(tp);
    plan.mutable_grid()->set_dp(dp);
    plan.mutable_grid()->set_pp(pp);
    DefaultedPlan result;
    ASSIGN_OR_RETURN(result.plan, ResolvePlan(plan, context));
    result.explanation = fmt::format(
        "No plan given; by the default rule: {}. The rule: tp 2 where it "
        "divides the heads and the MLP's width, then pp 2 where every stage "
        "has at least 2 blocks and there are 2 samples to pipeline, the rest "
        "dp.",
        Summary(result.plan));
    return result;
  }
  return InvalidArgument(
      "no default plan: found {} ranks and a global batch of {}, expected "
      "ranks / (tp * pp) to divide the global batch for tp and pp of 1 or 2 "
      "(the model has {} heads, an MLP of width {} and {} blocks); change the "
      "ranks or the batch, or give a plan",
      context.world_size, context.global_batch, context.heads,
      context.mlp_hidden, context.num_blocks);
}

}  // namespace trireme
