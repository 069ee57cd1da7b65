#include "scheduler/plan/validation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/check_range.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

absl::Status ValidateStageRanks(const Plan& plan, const PlanContext& context) {
  const auto& stage_ranks = plan.skip().stage_ranks();
  const Plan::Grid& grid = plan.grid();
  if (grid.tp() != 1 || grid.cp() != 1) {
    return PlanFieldError("skip.stage_ranks",
                          fmt::format("tp {} and cp {}", grid.tp(), grid.cp()),
                          "1 each");
  }
  if (stage_ranks.size() != static_cast<int>(grid.pp())) {
    return PlanFieldError(
        "skip.stage_ranks", fmt::format("{} entries", stage_ranks.size()),
        fmt::format("one for each of grid.pp, {}", grid.pp()));
  }
  int64_t sum = 0;
  for (const uint32_t ranks : stage_ranks) {
    if (ranks < 1) {
      return PlanFieldError("skip.stage_ranks", ranks, "at least 1 each");
    }
    sum += ranks;
  }
  if (sum != context.world_size) {
    return PlanFieldError(
        "skip.stage_ranks", fmt::format("{} in all", sum),
        fmt::format("a sum of {}, the job's ranks", context.world_size));
  }
  if (stage_ranks[0] != grid.dp()) {
    return PlanFieldError("skip.stage_ranks",
                          fmt::format("{} first", stage_ranks[0]),
                          fmt::format("grid.dp, {}", grid.dp()));
  }
  return absl::OkStatus();
}

absl::Status ValidatePlacement(const Plan& plan, int64_t world_size) {
  if (plan.placement_size() != world_size) {
    return PlanFieldError(
        "placement", fmt::format("{} entries", plan.placement_size()),
        fmt::format("{}, one per rank (or none)", world_size));
  }
  std::vector<bool> taken(world_size, false);
  for (int i = 0; i < plan.placement_size(); ++i) {
    const int64_t physical = plan.placement(i);
    if (physical >= world_size) {
      return PlanFieldError(fmt::format("placement[{}]", i), physical,
                            fmt::format("a rank below {}", world_size));
    }
    if (taken[physical]) {
      return PlanFieldError(fmt::format("placement[{}]", i), physical,
                            "a rank that no earlier entry names");
    }
    taken[physical] = true;
  }
  return absl::OkStatus();
}

// "GPIPE, ONE_F_ONE_B or INTERLEAVED": the names of those for which `chosen`.
std::string ScheduleNames(const std::function<bool(const Schedule&)>& chosen,
                          std::string_view last_by) {
  std::vector<std::string> names;
  for (const Schedule& schedule : AllSchedules()) {
    if (chosen(schedule)) names.push_back(Plan::Schedule_Name(schedule.id));
  }
  const std::string last = names.back();
  names.pop_back();
  return names.empty()
             ? last
             : fmt::format("{} {} {}", fmt::join(names, ", "), last_by, last);
}

absl::Status ValidateStages(const Plan& plan, int64_t num_blocks) {
  const int64_t expected =
      static_cast<int64_t>(plan.grid().pp()) * plan.chunks_per_rank();
  if (plan.stages_size() != expected) {
    return PlanFieldError(
        "stages", fmt::format("{} stages", plan.stages_size()),
        plan.chunks_per_rank() == 1
            ? fmt::format("{}, one per pipeline rank (grid.pp)", expected)
            : fmt::format("{}: grid.pp {} * chunks_per_rank {}", expected,
                          plan.grid().pp(), plan.chunks_per_rank()));
  }
  uint64_t sum = 0;
  for (int i = 0; i < plan.stages_size(); ++i) {
    if (plan.stages(i).blocks() < 1) {
      return PlanFieldError(fmt::format("stages[{}].blocks", i), 0,
                            "at least 1");
    }
    sum += plan.stages(i).blocks();
  }
  if (sum != static_cast<uint64_t>(num_blocks)) {
    return PlanFieldError("stages", fmt::format("{} blocks in all", sum),
                          fmt::format("the model's {} blocks", num_blocks));
  }
  return absl::OkStatus();
}

absl::Status ValidateSharding(const Plan& plan, const PlanContext& context) {
  const Plan::Grid& grid = plan.grid();
  const int64_t ulysses = plan.ulysses();
  if (ulysses < 1 || grid.cp() % ulysses != 0) {
    return PlanFieldError("ulysses", ulysses,
                          fmt::format("a divisor of grid.cp, {}", grid.cp()));
  }
  if (ulysses > 1 && context.heads % (ulysses * grid.tp()) != 0) {
    return PlanFieldError(
        "ulysses", ulysses,
        fmt::format("grid.tp, {}, times ulysses to divide the model's {} "
                    "attention heads",
                    grid.tp(), context.heads));
  }
  if (!Plan::Sharding_IsValid(plan.sharding()) ||
      plan.sharding() == Plan::SHARDING_UNSPECIFIED) {
    return PlanFieldError("sharding", static_cast<int>(plan.sharding()),
                          "REPLICATED, OPTIMIZER, GRADIENTS or PARAMETERS");
  }
  const int64_t group = plan.shard_group();
  if (group < 1 || grid.dp() % group != 0) {
    return PlanFieldError("shard_group", group,
                          fmt::format("a divisor of grid.dp, {}", grid.dp()));
  }
  return absl::OkStatus();
}

absl::Status ValidateRecompute(const Plan& plan) {
  if (!Plan::Recompute_IsValid(plan.recompute()) ||
      plan.recompute() == Plan::RECOMPUTE_UNSPECIFIED) {
    return PlanFieldError("recompute", static_cast<int>(plan.recompute()),
                          "NONE, SELECTIVE or FULL");
  }
  if (plan.has_recompute_blocks() && plan.recompute() != Plan::FULL) {
    return PlanFieldError("recompute_blocks", plan.recompute_blocks(),
                          fmt::format("none with recompute {}",
                                      Plan::Recompute_Name(plan.recompute())));
  }
  return absl::OkStatus();
}

absl::Status ValidateMicrobatches(const Plan& plan, int64_t global_batch) {
  const int64_t local_batch = global_batch / plan.grid().dp();
  const int64_t count = plan.microbatches();
  const int64_t size = plan.microbatch_size();
  if (count < 1 || local_batch % count != 0) {
    return PlanFieldError("microbatches", count,
                          DivisorOfBatch(plan.grid(), global_batch));
  }
  if (size != local_batch / count) {
    return PlanFieldError(
        "microbatch_size", size,
        fmt::format("{}: global batch {} = dp {} * microbatches {} * {}",
                    local_batch / count, global_batch, plan.grid().dp(), count,
                    local_batch / count));
  }
  return absl::OkStatus();
}

// `most_blocks`: of a pipeline rank.
absl::Status ValidateNvme(const Plan::Offload& offload, int64_t most_blocks) {
  if (!offload.has_nvme()) return absl::OkStatus();
  const std::string& folder = offload.nvme().folder();
  if (!folder.starts_with('/')) {
    return PlanFieldError("offload.nvme.folder", fmt::format("'{}'", folder),
                          "the absolute path of a folder on the drive");
  }
  const double endurance = offload.nvme().drive_endurance_tbw();
  if (!(endurance >= 0) || !std::isfinite(endurance)) {
    return PlanFieldError("offload.nvme.drive_endurance_tbw", endurance,
                          "0 (unknown) or so many times 1e12 bytes");
  }
  const int64_t host_units = offload.nvme().host_units();
  if (host_units > most_blocks) {
    return PlanFieldError(
        "offload.nvme.host_units", host_units,
        fmt::format("0 (all weights are in host memory) to {}, the most blocks "
                    "of a pipeline rank",
                    most_blocks));
  }
  return absl::OkStatus();
}

absl::Status ValidateOffload(const Plan& plan) {
  if (!plan.has_offload()) return absl::OkStatus();
  const Plan::Grid& grid = plan.grid();
  if (plan.has_skip()) {
    return PlanFieldError("offload", "a partial pipeline (skip)", "none");
  }
  if (ScheduleOf(plan).splits_backward) {
    return PlanFieldError(
        "offload",
        fmt::format("schedule {}", Plan::Schedule_Name(plan.schedule())),
        fmt::format("{}: a unit's gradients leave when its backward is done",
                    ScheduleNames(
                        [&](const Schedule& s) {
                          return !s.splits_backward &&
                                 (!s.unit_major || grid.pp() == 1);
                        },
                        "or")));
  }
  const std::vector<int64_t> blocks = BlocksOfRanks(plan);
  const int64_t most = *std::max_element(blocks.begin(), blocks.end());
  const int64_t resident = plan.offload().resident_units();
  if (resident < 1 || resident > most) {
    return PlanFieldError(
        "offload.resident_units", resident,
        fmt::format("1 to {}, the most blocks of a pipeline rank", most));
  }
  int64_t fewest = plan.stages(0).blocks();
  for (const Plan::Stage& stage : plan.stages()) {
    fewest = std::min<int64_t>(fewest, stage.blocks());
  }
  if (plan.offload().device_blocks() >= fewest) {
    return PlanFieldError(
        "offload.device_blocks", plan.offload().device_blocks(),
        fmt::format("0 to {}: of each stage one block or more leave",
                    fewest - 1));
  }
  if (plan.offload().activations() && plan.recompute() != Plan::FULL) {
    return PlanFieldError(
        "offload.activations",
        fmt::format("true with recompute {}",
                    Plan::Recompute_Name(plan.recompute())),
        "recompute FULL, with which blocks keep their inputs only");
  }
  return ValidateNvme(plan.offload(), most);
}

// More are messages of few rows.
constexpr uint32_t kMaxExpertChunks = 64;

// How rows go, of experts or of one of its choices: `of`. `least_chunks`: 0
// where none are said to mean one.
absl::Status ValidateRows(std::string_view of, Plan::Experts::Move move,
                          uint32_t least_chunks, uint32_t chunks,
                          uint32_t copies, const Plan& plan,
                          const PlanContext& context) {
  const bool none_go = move == Plan::Experts::WEIGHTS;
  if (chunks < least_chunks || chunks > kMaxExpertChunks ||
      (chunks > 1 && none_go)) {
    return PlanFieldError(fmt::format("{}.chunks", of), chunks,
                          none_go && chunks > 1
                              ? "1 with move WEIGHTS: no rows go"
                              : fmt::format("1 to {}", kMaxExpertChunks));
  }
  if (copies == 0) return absl::OkStatus();
  const std::string field = fmt::format("{}.row_copies", of);
  if (none_go) {
    return PlanFieldError(field, copies, "0 with move WEIGHTS: no rows go");
  }
  const uint32_t ep = plan.grid().ep();
  const int64_t sharers =
      context.experts == 0 ? ep : std::max<int64_t>(1, ep / context.experts);
  if (sharers % copies == 0) return absl::OkStatus();
  return PlanFieldError(
      field, copies,
      fmt::format("0 (all) or a divisor of the {} ranks that share an expert",
                  sharers));
}

// Of choices that were measured with another model, or on other ranks.
absl::Status ValidateTunedFor(const Plan& plan, const PlanContext& context) {
  const Plan::Experts::TunedFor& tuned = plan.experts().tuned_for();
  struct Measured {
    std::string_view field;
    int64_t found;
    int64_t expected;
  };
  for (const Measured& of :
       {Measured{"ep", tuned.ep(), plan.grid().ep()},
        {"experts", tuned.experts(), context.experts},
        {"expert_hidden", tuned.expert_hidden(), context.expert_hidden}}) {
    if (of.found == 0 || of.expected == 0 || of.found == of.expected) continue;
    return PlanFieldError(
        fmt::format("experts.tuned_for.{}", of.field), of.found,
        fmt::format("{}, which choices are measured for again by trireme tune",
                    of.expected));
  }
  return absl::OkStatus();
}

absl::Status ValidateExperts(const Plan& plan, const PlanContext& context) {
  if (!plan.has_experts()) return absl::OkStatus();
  const uint32_t ep = plan.grid().ep();
  if (ep == 1) {
    return PlanFieldError("experts", "grid.ep 1", "more: nothing moves");
  }
  const uint32_t of_node = plan.experts().node_ranks();
  if (of_node < 1 || ep % of_node != 0) {
    return PlanFieldError("experts.node_ranks", of_node,
                          fmt::format("a divisor of ep, {}", ep));
  }
  const double load = plan.experts().max_load();
  if (load != 0 && !(load >= 1 && load <= ep)) {
    return PlanFieldError("experts.max_load", fmt::format("{}", load),
                          fmt::format("0 (no bound) or 1 to ep, {}", ep));
  }
  if (plan.experts().choices_size() > 0 &&
      plan.experts().move() != Plan::Experts::ADAPTIVE) {
    return PlanFieldError("experts.choices", plan.experts().choices_size(),
                          "none without move ADAPTIVE");
  }
  const uint32_t chunks = plan.experts().chunks();
  RETURN_IF_ERROR(ValidateRows("experts", plan.experts().move(),
                               /*least_chunks=*/1, chunks,
                               plan.experts().row_copies(), plan, context));
  const uint32_t shadowed = plan.experts().shadowed();
  if (shadowed > 0 && plan.experts().move() == Plan::Experts::WEIGHTS) {
    return PlanFieldError("experts.shadowed", shadowed,
                          "0 with move WEIGHTS: all are");
  }
  if (context.experts > 0 && shadowed > context.experts) {
    return PlanFieldError(
        "experts.shadowed", shadowed,
        fmt::format("at most the {} experts of a layer", context.experts));
  }
  if (shadowed > 0 && context.experts > 0 && ep > context.experts) {
    return PlanFieldError(
        "experts.shadowed", shadowed,
        fmt::format(
            "0 with grid.ep {}, more than the model's {} experts, whose "
            "ranks share their rows",
            ep, context.experts));
  }
  if (plan.experts().deduplicate() && (of_node == 1 || of_node == ep)) {
    return PlanFieldError(
        "experts.deduplicate", "true",
        fmt::format("node_ranks between 1 and ep, {}, with it", ep));
  }
  if (plan.experts().deduplicate() && chunks > 1) {
    return PlanFieldError("experts.deduplicate", "true",
                          "false with chunks: a token's rows go in several");
  }
  if (plan.experts().deduplicate() && shadowed > 0) {
    return PlanFieldError("experts.deduplicate", "true",
                          "false with shadowed: rows then go in parts");
  }
  if (plan.experts().row_copies() > 0 &&
      plan.experts().move() == Plan::Experts::ADAPTIVE) {
    return PlanFieldError("experts.row_copies", plan.experts().row_copies(),
                          "0 with move ADAPTIVE, which chooses it");
  }
  RETURN_IF_ERROR(ValidateTunedFor(plan, context));
  double below = 0;
  for (const Plan::Experts::Choice& choice : plan.experts().choices()) {
    if (!(choice.max_load() > below && choice.max_load() <= ep)) {
      return PlanFieldError(
          "experts.choices.max_load", fmt::format("{}", choice.max_load()),
          fmt::format("more than {} and at most ep, {}: another cluster's "
                      "choices?",
                      below, ep));
    }
    below = choice.max_load();
    if (plan.experts().deduplicate() && choice.chunks() > 1) {
      return PlanFieldError("experts.choices.chunks", choice.chunks(),
                            "1 with deduplicate: a token's row goes once");
    }
    if (choice.move() != Plan::Experts::ROWS &&
        choice.move() != Plan::Experts::WEIGHTS) {
      return PlanFieldError("experts.choices.move",
                            Plan::Experts::Move_Name(choice.move()),
                            "ROWS or WEIGHTS");
    }
    RETURN_IF_ERROR(ValidateRows("experts.choices", choice.move(),
                                 /*least_chunks=*/0, choice.chunks(),
                                 choice.row_copies(), plan, context));
    if (choice.by_nodes() && (of_node == 1 || of_node == ep)) {
      return PlanFieldError(
          "experts.choices.by_nodes", "true",
          fmt::format("node_ranks between 1 and ep, {}, with it", ep));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::array<NamedAxis, 5> AxesOf(const Plan::Grid& grid) {
  return {{{"tp", grid.tp()},
           {"cp", grid.cp()},
           {"ep", grid.ep()},
           {"dp", grid.dp()},
           {"pp", grid.pp()}}};
}

std::string DivisorOfBatch(const Plan::Grid& grid, int64_t global_batch) {
  return fmt::format("a divisor of {}, the global batch of {} over dp {}",
                     global_batch / grid.dp(), global_batch, grid.dp());
}

absl::Status ValidateContext(const PlanContext& context) {
  static constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  RETURN_IF_ERROR(CheckRange("ranks", context.world_size, 1, kMax));
  RETURN_IF_ERROR(CheckRange("global batch", context.global_batch, 1, kMax));
  RETURN_IF_ERROR(
      CheckRange("blocks of the model", context.num_blocks, 1, kMax));
  RETURN_IF_ERROR(CheckRange("attention heads", context.heads, 0, kMax));
  RETURN_IF_ERROR(CheckRange("experts", context.experts, 0, kMax));
  return CheckRange("width of the MLP", context.mlp_hidden, 0, kMax);
}

absl::Status ValidateGrid(const Plan& plan, const PlanContext& context) {
  const Plan::Grid& grid = plan.grid();
  for (const auto& [name, size] : AxesOf(grid)) {
    if (size < 1 || size > context.world_size) {
      return PlanFieldError(
          fmt::format("grid.{}", name), size,
          fmt::format("1 to the job's {} ranks", context.world_size));
    }
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
    return PlanFieldError(
        "grid",
        fmt::format("tp {} * cp {} * dp {} * pp {}", grid.tp(), grid.cp(),
                    grid.dp(), grid.pp()),
        fmt::format("a product of {}, the job's ranks", context.world_size));
  }
  if (grid.ep() != 1) {
    if (context.experts == 0) {
      return PlanFieldError("grid.ep", grid.ep(),
                            "1, since the model has no experts");
    }
    if (!alike) {
      return PlanFieldError("grid.ep", grid.ep(), "1 with skip.stage_ranks");
    }
    const int64_t stage = size / grid.pp();
    const bool whole = context.experts % grid.ep() == 0;
    if (stage % grid.ep() != 0 ||
        (!whole && grid.ep() % context.experts != 0)) {
      return PlanFieldError(
          "grid.ep", grid.ep(),
          fmt::format("a divisor of the {} ranks of a stage that divides the "
                      "model's {} experts or is a multiple of them",
                      stage, context.experts));
    }
    if (!whole && context.expert_hidden % (grid.ep() / context.experts) != 0) {
      return PlanFieldError(
          "grid.ep", grid.ep(),
          fmt::format("ep over the model's {} experts to divide their {} "
                      "channels",
                      context.experts, context.expert_hidden));
    }
  }
  if (!context.context_parallel && grid.cp() > 1) {
    return PlanFieldError(
        "grid.cp", grid.cp(),
        "1 for a model that attends in windows, whose tokens stay together");
  }
  if (!context.sequence_parallel && plan.sequence_parallel()) {
    return PlanFieldError("sequence_parallel", "true",
                          "false for a model that merges neighbouring tokens");
  }
  if (context.heads > 0 && context.heads % grid.tp() != 0) {
    return PlanFieldError(
        "grid.tp", grid.tp(),
        fmt::format("a divisor of the model's {} attention heads",
                    context.heads));
  }
  if (context.mlp_hidden > 0 && context.mlp_hidden % grid.tp() != 0) {
    return PlanFieldError(
        "grid.tp", grid.tp(),
        fmt::format("a divisor of the width of the model's MLP, "
                    "{}",
                    context.mlp_hidden));
  }
  if (context.shared_hidden % grid.tp() != 0) {
    return PlanFieldError(
        "grid.tp", grid.tp(),
        fmt::format("a divisor of the width of the shared expert, {}",
                    context.shared_hidden));
  }
  if (context.global_batch % grid.dp() != 0) {
    return PlanFieldError("grid.dp", grid.dp(),
                          fmt::format("a divisor of the global batch of {}",
                                      context.global_batch));
  }
  return absl::OkStatus();
}

absl::Status ValidateSchedule(const Plan& plan) {
  const Schedule* schedule = FindSchedule(plan.schedule());
  if (schedule == nullptr) {
    return PlanFieldError(
        "schedule", static_cast<int>(plan.schedule()),
        ScheduleNames([](const Schedule&) { return true; }, "or"));
  }
  const std::string name = Plan::Schedule_Name(plan.schedule());
  if (schedule->unit_major && (plan.grid().pp() != 1 || !plan.has_offload())) {
    return PlanFieldError(
        "schedule",
        fmt::format("{} with grid.pp {} and {}offload", name, plan.grid().pp(),
                    plan.has_offload() ? "" : "no "),
        "grid.pp 1 and offload: it says in which order blocks come to the "
        "device");
  }
  const int64_t chunks = plan.chunks_per_rank();
  if (chunks < schedule->least_chunks || chunks > schedule->most_chunks) {
    const bool one = schedule->most_chunks == 1;
    return PlanFieldError(
        "chunks_per_rank", chunks,
        fmt::format("{} with schedule {}{}",
                    schedule->least_chunks == schedule->most_chunks
                        ? fmt::format("{}", schedule->most_chunks)
                        : fmt::format("{} to {}", schedule->least_chunks,
                                      schedule->most_chunks),
                    name,
                    one ? fmt::format(" ({} have several)",
                                      ScheduleNames(
                                          [](const Schedule& s) {
                                            return s.most_chunks > 1;
                                          },
                                          "and"))
                        : ""));
  }
  if (!schedule->groups_microbatches) {
    if (plan.has_microbatch_group()) {
      return PlanFieldError("microbatch_group", plan.microbatch_group(),
                            fmt::format("none with schedule {}", name));
    }
    return absl::OkStatus();
  }
  const int64_t pp = plan.grid().pp();
  const int64_t group = plan.microbatch_group();
  if (group < pp) {
    return PlanFieldError("microbatch_group", group,
                          fmt::format("at least grid.pp, {}", pp));
  }
  const int64_t rest = plan.microbatches() % group;
  if (rest != 0 && rest < pp) {
    return PlanFieldError(
        "microbatches", plan.microbatches(),
        fmt::format("a multiple of microbatch_group, {}, or a rest of at least "
                    "grid.pp, {}",
                    group, pp));
  }
  return absl::OkStatus();
}

absl::Status ValidatePlan(const Plan& plan, const PlanContext& context) {
  RETURN_IF_ERROR(ValidateContext(context));
  if (plan.version() != kPlanVersion) {
    return PlanFieldError("version", plan.version(),
                          fmt::format("{}", kPlanVersion));
  }
  RETURN_IF_ERROR(ValidateGrid(plan, context));
  RETURN_IF_ERROR(ValidatePlacement(plan, context.world_size));
  RETURN_IF_ERROR(ValidateMicrobatches(plan, context.global_batch));
  RETURN_IF_ERROR(ValidateSchedule(plan));
  RETURN_IF_ERROR(ValidateStages(plan, context.num_blocks));
  RETURN_IF_ERROR(ValidateSharding(plan, context));
  RETURN_IF_ERROR(ValidateRecompute(plan));
  RETURN_IF_ERROR(ValidateOffload(plan));
  RETURN_IF_ERROR(ValidateExperts(plan, context));
  if (plan.gradient_bucket_bytes() < 4 ||
      plan.gradient_bucket_bytes() > kMaxBucketBytes) {
    return PlanFieldError("gradient_bucket_bytes", plan.gradient_bucket_bytes(),
                          fmt::format("4 to {} bytes", kMaxBucketBytes));
  }
  return absl::OkStatus();
}

}  // namespace trireme
