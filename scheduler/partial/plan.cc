#include "scheduler/partial/plan.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/partial/search.h"
#include "scheduler/partial/validator.h"
#include "scheduler/plan/stage_ranks.h"

namespace trireme {
namespace {

// Of a block's forward: messages are never quite free.
constexpr double kNominalTransfer = 0.01;
// Some tenths of a second for thirty microbatches.
constexpr int64_t kSearchEvaluations = 10'000;
// Quotients of whole numbers that differ by less are equal.
constexpr double kTolerance = 1e-9;

absl::Status FieldError(std::string_view field, std::string_view found,
                        std::string_view expected) {
  return InvalidArgument("plan.skip.{}: found {}, expected {}", field, found,
                         expected);
}

absl::Status ValidateSetting(const Plan& plan) {
  const Plan::Grid& grid = plan.grid();
  if (grid.tp() != 1 || grid.cp() != 1 || grid.ep() != 1) {
    return InvalidArgument(
        "plan.skip: found tp {}, cp {}, ep {}, expected 1 each", grid.tp(),
        grid.cp(), grid.ep());
  }
  if (grid.pp() < 2) {
    return InvalidArgument("plan.skip: found pp {}, expected at least 2",
                           grid.pp());
  }
  if (plan.schedule() != Plan::ONE_F_ONE_B || plan.chunks_per_rank() != 1) {
    return InvalidArgument(
        "plan.skip: found schedule {}, expected none: the paths and orders are "
        "the schedule",
        Plan::Schedule_Name(plan.schedule()));
  }
  if (plan.sharding() != Plan::REPLICATED || plan.bf16_gradient_messages()) {
    return InvalidArgument(
        "plan.skip: found sharding {} and bf16_gradient_messages {}, expected "
        "REPLICATED and false",
        Plan::Sharding_Name(plan.sharding()), plan.bf16_gradient_messages());
  }
  return absl::OkStatus();
}

std::vector<NodePath> PathsOf(const Plan& plan) {
  std::vector<NodePath> paths;
  for (const Plan::Skip::Path& path : plan.skip().paths()) {
    paths.emplace_back(path.ranks().begin(), path.ranks().end());
  }
  return paths;
}

// Each microbatch stays on the ranks of its replica; a stage with fewer ranks
// serves the replicas in turn, one with more has idle ranks.
std::vector<NodePath> StraightPaths(const SkipInstance& instance) {
  std::vector<NodePath> paths;
  for (int32_t m = 0; m < instance.num_microbatches(); ++m) {
    const int32_t replica = m / instance.microbatches_per_data_node;
    NodePath& path = paths.emplace_back();
    for (const std::vector<int32_t>& group : instance.groups) {
      const auto ranks = static_cast<int32_t>(group.size());
      path.push_back(
          group[(instance.num_data_nodes() > ranks ? m : replica) % ranks]);
    }
  }
  return paths;
}

// The order in which free ranks take what is ready: backwards, then losses,
// then forwards, each in the order of the microbatches.
absl::StatusOr<SkipSchedule> Dispatched(const SkipInstance& instance,
                                        std::vector<NodePath> paths) {
  const auto count = static_cast<int32_t>(paths.size());
  std::vector<double> keys(3 * paths.size());
  for (int32_t m = 0; m < count; ++m) {
    keys[3 * m] = 2 * count + m;
    keys[3 * m + 1] = count + m;
    keys[3 * m + 2] = m;
  }
  SkipDispatcher dispatcher(instance);
  if (!dispatcher.Run(paths, keys)) {
    return FieldError("slots", fmt::format("{}", instance.slots_per_node),
                      "more, or 0: with these paths ranks wait for one "
                      "another's slots for ever");
  }
  return SkipSchedule{.paths = std::move(paths), .order = dispatcher.order()};
}

void SetPaths(const std::vector<NodePath>& paths, Plan& plan) {
  plan.mutable_skip()->clear_paths();
  for (const NodePath& path : paths) {
    Plan::Skip::Path& entry = *plan.mutable_skip()->add_paths();
    for (const int32_t node : path) entry.add_ranks(node);
  }
}

}  // namespace

std::vector<int64_t> SkipStages(int64_t blocks,
                                const std::vector<int64_t>& ranks,
                                int64_t visited) {
  const auto stages = static_cast<int64_t>(ranks.size());
  // Where the first stage has `first` blocks: the others as even as possible.
  const auto cut = [&](int64_t first) {
    std::vector<int64_t> result(stages, 1);
    result[0] = first;
    for (int64_t left = blocks - first - (stages - 1); left > 0; --left) {
      int64_t least = 1;
      for (int64_t stage = 2; stage < stages; ++stage) {
        if ((result[stage] + 1) * ranks[least] <
            (result[least] + 1) * ranks[stage]) {
          least = stage;
        }
      }
      ++result[least];
    }
    return result;
  };
  // What the busiest rank has to do for a microbatch, in (stages - 1)ths of a
  // block: each of the others is visited by visited - 1 of stages - 1.
  const auto work = [&](const std::vector<int64_t>& stage_blocks) {
    double most = 0;
    for (int64_t stage = 0; stage < stages; ++stage) {
      const int64_t visits = stage == 0 ? stages - 1 : visited - 1;
      most = std::max(most, static_cast<double>(stage_blocks[stage] * visits) /
                                static_cast<double>(ranks[stage]));
    }
    return most;
  };
  std::vector<int64_t> best = cut(1);
  for (int64_t first = 2; first <= blocks - stages + 1; ++first) {
    std::vector<int64_t> other = cut(first);
    if (work(other) < work(best) * (1 - kTolerance)) best = std::move(other);
  }
  return best;
}

SkipInstance SkipInstanceOf(const Plan& plan) {
  const Plan::Skip& skip = plan.skip();
  const auto pp = static_cast<int32_t>(plan.grid().pp());
  const auto ranks = static_cast<int32_t>(NumRanks(plan));
  SkipInstance instance;
  instance.groups.resize(pp);
  for (int32_t node = 0; node < ranks; ++node) {
    const int64_t stage = StageOfRank(plan, node);
    instance.groups[stage].push_back(node);
    instance.forward_s.push_back(plan.stages(static_cast<int>(stage)).blocks());
  }
  instance.transfer_s.assign(ranks,
                             std::vector<double>(ranks, kNominalTransfer));
  instance.path_length = static_cast<int32_t>(skip.stages_per_microbatch());
  instance.microbatches_per_data_node =
      static_cast<int32_t>(plan.microbatches());
  instance.slots_per_node = static_cast<int32_t>(skip.slots());
  // Asked of a search; who gives paths may want them otherwise.
  instance.equal_stage_visits =
      skip.paths().empty() &&
      instance.num_microbatches() * (instance.path_length - 1) % (pp - 1) == 0;
  if (!skip.swaps()) instance.rules.max_swaps = 0;
  instance.rules.max_forward_jump =
      std::max(instance.rules.max_forward_jump, pp - instance.path_length + 1);
  return instance;
}

absl::Status ResolveSkip(Plan& plan) {
  RETURN_IF_ERROR(ValidateSetting(plan));
  Plan::Skip& skip = *plan.mutable_skip();
  if (!skip.has_stages_per_microbatch()) {
    skip.set_stages_per_microbatch(plan.grid().pp());
  }
  if (skip.stages_per_microbatch() < 2 ||
      skip.stages_per_microbatch() > plan.grid().pp()) {
    return FieldError("stages_per_microbatch",
                      fmt::format("{}", skip.stages_per_microbatch()),
                      fmt::format("2 to pp, which is {}", plan.grid().pp()));
  }
  if (!skip.has_swaps()) skip.set_swaps(false);
  if (!skip.has_slots()) skip.set_slots(plan.grid().pp());
  if (skip.divisor() == Plan::Skip::DIVISOR_UNSPECIFIED) {
    skip.set_divisor(Plan::Skip::VISITS);
  }
  const SkipInstance instance = SkipInstanceOf(plan);
  RETURN_IF_ERROR(CheckInstance(instance));
  if (skip.paths().empty()) {
    if (!skip.orders().empty()) {
      return FieldError("orders", "orders without paths", "both or paths");
    }
    if (skip.stages_per_microbatch() == plan.grid().pp() && !skip.swaps()) {
      SetPaths(StraightPaths(instance), plan);
    } else {
      ASSIGN_OR_RETURN(
          const SkipSearchResult found,
          SearchSkipSchedule(instance, {.evaluations = kSearchEvaluations}));
      SetSkipSchedule(found.schedule, plan);
    }
  }
  if (skip.paths_size() != instance.num_microbatches()) {
    return FieldError("paths", fmt::format("{}", skip.paths_size()),
                      fmt::format("one for each of {} microbatches",
                                  instance.num_microbatches()));
  }
  for (const Plan::Skip::Path& path : skip.paths()) {
    for (const uint32_t rank : path.ranks()) {
      if (rank < static_cast<uint32_t>(instance.num_nodes())) continue;
      return FieldError("paths.ranks", fmt::format("{}", rank),
                        fmt::format("below {}", instance.num_nodes()));
    }
  }
  ASSIGN_OR_RETURN(const SkipSchedule schedule, SkipScheduleOf(plan));
  return ValidateSkipSchedule(instance, schedule);
}

absl::StatusOr<SkipSchedule> SkipScheduleOf(const Plan& plan) {
  const SkipInstance instance = SkipInstanceOf(plan);
  RETURN_IF_ERROR(ValidateSkipPaths(instance, PathsOf(plan)));
  if (plan.skip().orders().empty()) return Dispatched(instance, PathsOf(plan));
  SkipSchedule schedule;
  schedule.paths = PathsOf(plan);
  const int32_t tasks = instance.tasks_per_microbatch();
  for (const Plan::Skip::Order& order : plan.skip().orders()) {
    std::vector<SkipTask>& list = schedule.order.emplace_back();
    for (const uint32_t task : order.tasks()) {
      list.push_back({.microbatch = static_cast<int32_t>(task / tasks),
                      .task = static_cast<int32_t>(task % tasks)});
    }
  }
  return schedule;
}

void SetSkipSchedule(const SkipSchedule& schedule, Plan& plan) {
  SetPaths(schedule.paths, plan);
  const auto tasks =
      2 * static_cast<int32_t>(plan.skip().stages_per_microbatch()) + 1;
  plan.mutable_skip()->clear_orders();
  for (const std::vector<SkipTask>& list : schedule.order) {
    Plan::Skip::Order& order = *plan.mutable_skip()->add_orders();
    for (const SkipTask& task : list) {
      order.add_tasks(task.microbatch * tasks + task.task);
    }
  }
}

}  // namespace trireme
