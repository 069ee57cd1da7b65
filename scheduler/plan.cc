#include "scheduler/plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/skip/skip_plan.h"
#include "scheduler/stage_ranks.h"

namespace trireme {
namespace {

constexpr uint32_t kPlanVersion = 1;
constexpr uint64_t kLeastBucketBytes = uint64_t{32} << 20;
constexpr uint64_t kBucketBytesPerRank = uint64_t{4} << 20;
constexpr int64_t kMaxChunksPerRank = 1024;
constexpr uint64_t kMaxBucketBytes = uint64_t{1} << 40;
// More than any machine has; what is listed by rank stays small.
constexpr int64_t kMaxRanks = int64_t{1} << 20;

template <typename Found>
absl::Status FieldError(std::string_view field, const Found& found,
                        std::string_view expected) {
  return InvalidArgument("plan.{}: found {}, expected {}", field, found,
                         expected);
}

absl::Status ValidateContext(const PlanContext& context) {
  static constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  auto check = [](std::string_view name, int64_t value, int64_t smallest) {
    if (value >= smallest && value <= kMax) return absl::OkStatus();
    return InvalidArgument("{}: found {}, expected {} to {}", name, value,
                           smallest, kMax);
  };
  RETURN_IF_ERROR(check("ranks", context.world_size, 1));
  RETURN_IF_ERROR(check("global batch", context.global_batch, 1));
  RETURN_IF_ERROR(check("blocks of the model", context.num_blocks, 1));
  RETURN_IF_ERROR(check("attention heads", context.heads, 0));
  return check("width of the MLP", context.mlp_hidden, 0);
}

using NamedAxis = std::pair<std::string_view, uint32_t>;

std::array<NamedAxis, 5> AxesOf(const Plan::Grid& grid) {
  return {{{"tp", grid.tp()},
           {"cp", grid.cp()},
           {"ep", grid.ep()},
           {"dp", grid.dp()},
           {"pp", grid.pp()}}};
}

void FillGrid(Plan& plan) {
  Plan::Grid& grid = *plan.mutable_grid();
  const auto& stage_ranks = plan.skip().stage_ranks();
  if (!grid.has_tp()) grid.set_tp(1);
  if (!grid.has_cp()) grid.set_cp(1);
  if (!grid.has_ep()) grid.set_ep(1);
  if (!grid.has_dp()) grid.set_dp(stage_ranks.empty() ? 1 : stage_ranks[0]);
  if (!grid.has_pp()) grid.set_pp(std::max(1, stage_ranks.size()));
}

// Ranks of stages that are not all alike; the grid's product says nothing then.
absl::Status ValidateStageRanks(const Plan& plan, const PlanContext& context) {
  const auto& stage_ranks = plan.skip().stage_ranks();
  const Plan::Grid& grid = plan.grid();
  if (grid.tp() != 1 || grid.cp() != 1) {
    return FieldError("skip.stage_ranks",
                      fmt::format("tp {} and cp {}", grid.tp(), grid.cp()),
                      "1 each");
  }
  if (stage_ranks.size() != static_cast<int>(grid.pp())) {
    return FieldError("skip.stage_ranks",
                      fmt::format("{} entries", stage_ranks.size()),
                      fmt::format("one for each of grid.pp, {}", grid.pp()));
  }
  int64_t sum = 0;
  for (const uint32_t ranks : stage_ranks) {
    if (ranks < 1) {
      return FieldError("skip.stage_ranks", ranks, "at least 1 each");
    }
    sum += ranks;
  }
  if (sum != context.world_size) {
    return FieldError(
        "skip.stage_ranks", fmt::format("{} in all", sum),
        fmt::format("a sum of {}, the job's ranks", context.world_size));
  }
  if (stage_ranks[0] != grid.dp()) {
    return FieldError("skip.stage_ranks",
                      fmt::format("{} first", stage_ranks[0]),
                      fmt::format("grid.dp, {}", grid.dp()));
  }
  return absl::OkStatus();
}

absl::Status ValidateGrid(const Plan& plan, const PlanContext& context) {
  const Plan::Grid& grid = plan.grid();
  for (const auto& [name, size] : AxesOf(grid)) {
    if (size < 1 || size > context.world_size) {
      return FieldError(
          fmt::format("grid.{}", name), size,
          fmt::format("1 to the job's {} ranks", context.world_size));
    }
  }
  if (grid.ep() != 1) {
    return FieldError("grid.ep", grid.ep(),
                      "1 (the runtime has no expert parallelism)");
  }
  const bool alike = plan.skip().stage_ranks().empty();
  if (!alike) RETURN_IF_ERROR(ValidateStageRanks(plan, context));
  // Multiplied one by one and left as soon as it is too large, so that it
  // cannot overflow.
  int64_t size = 1;
  for (const uint32_t axis : {grid.tp(), grid.cp(), grid.dp(), grid.pp()}) {
    if (size <= context.world_size) size *= axis;
  }
  if (alike && size != context.world_size) {
    return FieldError(
        "grid",
        fmt::format("tp {} * cp {} * dp {} * pp {}", grid.tp(), grid.cp(),
                    grid.dp(), grid.pp()),
        fmt::format("a product of {}, the job's ranks", context.world_size));
  }
  if (context.heads > 0 && context.heads % grid.tp() != 0) {
    return FieldError("grid.tp", grid.tp(),
                      fmt::format("a divisor of the model's {} attention heads",
                                  context.heads));
  }
  if (context.mlp_hidden > 0 && context.mlp_hidden % grid.tp() != 0) {
    return FieldError("grid.tp", grid.tp(),
                      fmt::format("a divisor of the width of the model's MLP, "
                                  "{}",
                                  context.mlp_hidden));
  }
  if (context.global_batch % grid.dp() != 0) {
    return FieldError("grid.dp", grid.dp(),
                      fmt::format("a divisor of the global batch of {}",
                                  context.global_batch));
  }
  return absl::OkStatus();
}

absl::Status ValidatePlacement(const Plan& plan, int64_t world_size) {
  if (plan.placement_size() != world_size) {
    return FieldError("placement",
                      fmt::format("{} entries", plan.placement_size()),
                      fmt::format("{}, one per rank (or none)", world_size));
  }
  std::vector<bool> taken(world_size, false);
  for (int i = 0; i < plan.placement_size(); ++i) {
    const int64_t physical = plan.placement(i);
    const std::string field = fmt::format("placement[{}]", i);
    if (physical >= world_size) {
      return FieldError(field, physical,
                        fmt::format("a rank below {}", world_size));
    }
    if (taken[physical]) {
      return FieldError(field, physical, "a rank that no earlier entry names");
    }
    taken[physical] = true;
  }
  return absl::OkStatus();
}

bool IsSchedule(const Plan& plan) {
  return plan.schedule() != Plan::SCHEDULE_UNSPECIFIED &&
         Plan::Schedule_IsValid(plan.schedule());
}

bool HasFixedChunks(Plan::Schedule schedule) { return schedule == Plan::ZB_V; }

absl::Status ValidateSchedule(const Plan& plan) {
  if (!IsSchedule(plan)) {
    return FieldError("schedule", static_cast<int>(plan.schedule()),
                      "GPIPE, ONE_F_ONE_B, INTERLEAVED, ZB_H1 or ZB_V");
  }
  const std::string name = Plan::Schedule_Name(plan.schedule());
  const int64_t chunks = plan.chunks_per_rank();
  if (chunks < 1 || chunks > kMaxChunksPerRank) {
    return FieldError("chunks_per_rank", chunks,
                      fmt::format("1 to {}", kMaxChunksPerRank));
  }
  if (HasFixedChunks(plan.schedule()) && chunks != 2) {
    return FieldError("chunks_per_rank", chunks,
                      fmt::format("2 with schedule {}", name));
  }
  if (!HasFixedChunks(plan.schedule()) &&
      plan.schedule() != Plan::INTERLEAVED && chunks != 1) {
    return FieldError("chunks_per_rank", chunks,
                      fmt::format("1 with schedule {} (INTERLEAVED and ZB_V "
                                  "have several)",
                                  name));
  }
  if (plan.schedule() != Plan::INTERLEAVED) {
    if (plan.has_microbatch_group()) {
      return FieldError("microbatch_group", plan.microbatch_group(),
                        fmt::format("none with schedule {}", name));
    }
    return absl::OkStatus();
  }
  const int64_t pp = plan.grid().pp();
  const int64_t group = plan.microbatch_group();
  if (group < pp) {
    return FieldError("microbatch_group", group,
                      fmt::format("at least grid.pp, {}", pp));
  }
  const int64_t rest = plan.microbatches() % group;
  if (rest != 0 && rest < pp) {
    return FieldError(
        "microbatches", plan.microbatches(),
        fmt::format("a multiple of microbatch_group, {}, or a rest of at least "
                    "grid.pp, {}",
                    group, pp));
  }
  return absl::OkStatus();
}

absl::Status ValidateStages(const Plan& plan, int64_t num_blocks) {
  const int64_t expected =
      static_cast<int64_t>(plan.grid().pp()) * plan.chunks_per_rank();
  if (plan.stages_size() != expected) {
    return FieldError(
        "stages", fmt::format("{} stages", plan.stages_size()),
        plan.chunks_per_rank() == 1
            ? fmt::format("{}, one per pipeline rank (grid.pp)", expected)
            : fmt::format("{}: grid.pp {} * chunks_per_rank {}", expected,
                          plan.grid().pp(), plan.chunks_per_rank()));
  }
  uint64_t sum = 0;
  for (int i = 0; i < plan.stages_size(); ++i) {
    if (plan.stages(i).blocks() < 1) {
      return FieldError(fmt::format("stages[{}].blocks", i), 0, "at least 1");
    }
    sum += plan.stages(i).blocks();
  }
  if (sum != static_cast<uint64_t>(num_blocks)) {
    return FieldError("stages", fmt::format("{} blocks in all", sum),
                      fmt::format("the model's {} blocks", num_blocks));
  }
  return absl::OkStatus();
}

absl::Status ValidateSharding(const Plan& plan, const PlanContext& context) {
  const Plan::Grid& grid = plan.grid();
  const int64_t ulysses = plan.ulysses();
  if (ulysses < 1 || grid.cp() % ulysses != 0) {
    return FieldError("ulysses", ulysses,
                      fmt::format("a divisor of grid.cp, {}", grid.cp()));
  }
  if (ulysses > 1 && context.heads % (ulysses * grid.tp()) != 0) {
    return FieldError(
        "ulysses", ulysses,
        fmt::format("grid.tp, {}, times ulysses to divide the model's {} "
                    "attention heads",
                    grid.tp(), context.heads));
  }
  if (!Plan::Sharding_IsValid(plan.sharding()) ||
      plan.sharding() == Plan::SHARDING_UNSPECIFIED) {
    return FieldError("sharding", static_cast<int>(plan.sharding()),
                      "REPLICATED, OPTIMIZER, GRADIENTS or PARAMETERS");
  }
  const int64_t group = plan.shard_group();
  if (group < 1 || grid.dp() % group != 0) {
    return FieldError("shard_group", group,
                      fmt::format("a divisor of grid.dp, {}", grid.dp()));
  }
  return absl::OkStatus();
}

absl::Status ValidateRecompute(const Plan& plan) {
  if (!Plan::Recompute_IsValid(plan.recompute()) ||
      plan.recompute() == Plan::RECOMPUTE_UNSPECIFIED) {
    return FieldError("recompute", static_cast<int>(plan.recompute()),
                      "NONE, SELECTIVE or FULL");
  }
  if (plan.has_recompute_blocks() && plan.recompute() != Plan::FULL) {
    return FieldError("recompute_blocks", plan.recompute_blocks(),
                      fmt::format("none with recompute {}",
                                  Plan::Recompute_Name(plan.recompute())));
  }
  return absl::OkStatus();
}

std::string DivisorOfBatch(const Plan::Grid& grid, int64_t global_batch) {
  return fmt::format("a divisor of {}, the global batch of {} over dp {}",
                     global_batch / grid.dp(), global_batch, grid.dp());
}

absl::Status ValidateMicrobatches(const Plan& plan, int64_t global_batch) {
  const int64_t local_batch = global_batch / plan.grid().dp();
  const int64_t count = plan.microbatches();
  const int64_t size = plan.microbatch_size();
  if (count < 1 || local_batch % count != 0) {
    return FieldError("microbatches", count,
                      DivisorOfBatch(plan.grid(), global_batch));
  }
  if (size != local_batch / count) {
    return FieldError(
        "microbatch_size", size,
        fmt::format("{}: global batch {} = dp {} * microbatches {} * {}",
                    local_batch / count, global_batch, plan.grid().dp(), count,
                    local_batch / count));
  }
  return absl::OkStatus();
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
        return FieldError("microbatch_size", size,
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

}  // namespace

absl::StatusOr<int64_t> RanksOf(const Plan& plan) {
  Plan filled = plan;
  FillGrid(filled);
  const Plan::Grid& grid = filled.grid();
  for (const auto& [name, size] : AxesOf(grid)) {
    if (size < 1 || size > kMaxRanks) {
      return FieldError(fmt::format("grid.{}", name), size,
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
      return FieldError("grid",
                        fmt::format("tp {} * cp {} * dp {} * pp {}", grid.tp(),
                                    grid.cp(), grid.dp(), grid.pp()),
                        fmt::format("at most {} ranks", kMaxRanks));
    }
    return ranks;
  }
  for (const uint32_t stage : filled.skip().stage_ranks()) ranks += stage;
  if (ranks < 1 || ranks > kMaxRanks) {
    return FieldError("skip.stage_ranks", fmt::format("{} in all", ranks),
                      fmt::format("1 to {}", kMaxRanks));
  }
  return ranks;
}

absl::Status ValidatePlan(const Plan& plan, const PlanContext& context) {
  RETURN_IF_ERROR(ValidateContext(context));
  if (plan.version() != kPlanVersion) {
    return FieldError("version", plan.version(),
                      fmt::format("{}", kPlanVersion));
  }
  RETURN_IF_ERROR(ValidateGrid(plan, context));
  RETURN_IF_ERROR(ValidatePlacement(plan, context.world_size));
  RETURN_IF_ERROR(ValidateMicrobatches(plan, context.global_batch));
  RETURN_IF_ERROR(ValidateSchedule(plan));
  RETURN_IF_ERROR(ValidateStages(plan, context.num_blocks));
  RETURN_IF_ERROR(ValidateSharding(plan, context));
  RETURN_IF_ERROR(ValidateRecompute(plan));
  if (plan.gradient_bucket_bytes() < 4 ||
      plan.gradient_bucket_bytes() > kMaxBucketBytes) {
    return FieldError("gradient_bucket_bytes", plan.gradient_bucket_bytes(),
                      fmt::format("4 to {} bytes", kMaxBucketBytes));
  }
  return absl::OkStatus();
}

namespace {

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
  const bool interleaved = resolved.schedule() == Plan::INTERLEAVED;
  if (!resolved.has_chunks_per_rank()) {
    resolved.set_chunks_per_rank(
        interleaved || HasFixedChunks(resolved.schedule()) ? 2 : 1);
  }
  if (interleaved && !resolved.has_microbatch_group()) {
    resolved.set_microbatch_group(grid.pp());
  }
  // Before a list of stages is made.
  RETURN_IF_ERROR(ValidateSchedule(resolved));
  if (resolved.stages().empty()) {
    const int64_t stages = int64_t{grid.pp()} * resolved.chunks_per_rank();
    if (stages > context.num_blocks) {
      return FieldError(
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
  if (!resolved.has_ulysses()) resolved.set_ulysses(1);
  if (resolved.sharding() == Plan::SHARDING_UNSPECIFIED) {
    resolved.set_sharding(Plan::REPLICATED);
  }
  if (!resolved.has_shard_group()) resolved.set_shard_group(grid.dp());
  if (!resolved.has_bf16_gradient_messages()) {
    resolved.set_bf16_gradient_messages(false);
  }
  if (resolved.recompute() == Plan::RECOMPUTE_UNSPECIFIED) {
    resolved.set_recompute(Plan::NONE);
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
    if (context.mlp_hidden % tp != 0) continue;
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

std::vector<int64_t> EvenStages(int64_t num_blocks, int64_t num_stages) {
  CHECK_GE(num_stages, 1);
  CHECK_GE(num_blocks, num_stages);
  std::vector<int64_t> stages(num_stages, num_blocks / num_stages);
  const int64_t remainder = num_blocks % num_stages;
  for (int64_t i = 1; i <= remainder; ++i) ++stages[i];
  return stages;
}

int64_t GridSize(const Plan::Grid& grid) {
  return int64_t{grid.tp()} * grid.cp() * grid.dp() * grid.pp();
}

GridCoordinates CoordinatesOf(const Plan::Grid& grid, int64_t logical_rank) {
  CHECK_GE(logical_rank, 0);
  CHECK_LT(logical_rank, GridSize(grid));
  GridCoordinates at;
  at.tp = logical_rank % grid.tp();
  logical_rank /= grid.tp();
  at.cp = logical_rank % grid.cp();
  logical_rank /= grid.cp();
  at.dp = logical_rank % grid.dp();
  at.pp = logical_rank / grid.dp();
  return at;
}

int64_t LogicalRankOf(const Plan::Grid& grid, const GridCoordinates& at) {
  return at.tp + grid.tp() * (at.cp + grid.cp() * (at.dp + grid.dp() * at.pp));
}

int64_t PhysicalRankOf(const Plan& plan, int64_t logical_rank) {
  CHECK_LT(logical_rank, plan.placement_size());
  return plan.placement(logical_rank);
}

int64_t LogicalRankAt(const Plan& plan, int64_t physical_rank) {
  const auto found = std::find(plan.placement().begin(), plan.placement().end(),
                               physical_rank);
  CHECK(found != plan.placement().end());
  return found - plan.placement().begin();
}

std::string Summary(const Plan& plan) {
  const Plan::Grid& grid = plan.grid();
  std::vector<uint32_t> blocks;
  for (const Plan::Stage& stage : plan.stages()) {
    blocks.push_back(stage.blocks());
  }
  std::string text = fmt::format("tp {} x ", grid.tp());
  if (grid.cp() > 1) {
    text += fmt::format("cp {} (ulysses {}) x ", grid.cp(), plan.ulysses());
  }
  const auto& stage_ranks = plan.skip().stage_ranks();
  const std::string dp = stage_ranks.empty()
                             ? fmt::format("{}", grid.dp())
                             : fmt::format("{}", fmt::join(stage_ranks, "+"));
  text += fmt::format(
      "pp {} x dp {} ({} ranks), {}, {} microbatch{} of {} sample{}, stages of "
      "{} blocks",
      grid.pp(), dp, NumRanks(plan), Plan::Schedule_Name(plan.schedule()),
      plan.microbatches(), plan.microbatches() == 1 ? "" : "es",
      plan.microbatch_size(), plan.microbatch_size() == 1 ? "" : "s",
      fmt::join(blocks, "+"));
  if (plan.chunks_per_rank() > 1) {
    text += fmt::format(", {} a rank", plan.chunks_per_rank());
  }
  if (plan.has_skip()) {
    text += fmt::format(", {} stages a microbatch{}",
                        plan.skip().stages_per_microbatch(),
                        plan.skip().swaps() ? ", some swapped" : "");
  }
  if (plan.sequence_parallel()) text += ", sequence parallel";
  if (plan.sharding() != Plan::REPLICATED) {
    text +=
        fmt::format(", sharding {} over {}",
                    Plan::Sharding_Name(plan.sharding()), plan.shard_group());
  }
  if (plan.bf16_gradient_messages()) text += ", bf16 gradient messages";
  if (plan.recompute() != Plan::NONE) {
    text +=
        fmt::format(", recompute {}", Plan::Recompute_Name(plan.recompute()));
    if (plan.has_recompute_blocks()) {
      text += fmt::format(" of {} blocks a stage", plan.recompute_blocks());
    }
  }
  return text;
}

}  // namespace trireme
