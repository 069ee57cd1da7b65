#include "scheduler/partial/program.h"

#include <utility>

#include "runtime/core/status.h"
#include "scheduler/partial/validator.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

constexpr int32_t kHead = 1;

// What each node computes, in the schedule's order. The head's backward follows
// its forward at once.
ComputeOrder OrderOf(const SkipInstance& instance,
                     const SkipSchedule& schedule) {
  ComputeOrder order;
  for (const std::vector<SkipTask>& tasks : schedule.order) {
    std::vector<ComputeStep>& steps = order.emplace_back();
    for (const auto& [microbatch, task] : tasks) {
      const bool loss = task == instance.path_length;
      const int32_t chunk = loss ? kHead : 0;
      if (task <= instance.path_length) {
        steps.push_back({InstructionKind::kForward, microbatch, chunk});
      }
      if (task >= instance.path_length) {
        steps.push_back({InstructionKind::kBackward, microbatch, chunk});
      }
    }
  }
  return order;
}

}  // namespace

absl::StatusOr<SkipProgram> BuildSkipProgram(const SkipInstance& instance,
                                             const SkipSchedule& schedule,
                                             std::vector<int32_t> buckets) {
  RETURN_IF_ERROR(ValidateSkipSchedule(instance, schedule));
  SkipProgram result;
  std::vector<StageLocation> holdings;
  std::vector<int32_t> first_holding;
  const std::vector<int32_t> stage_of = StageOfNodes(instance);
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    first_holding.push_back(static_cast<int32_t>(holdings.size()));
    holdings.push_back({.rank = node, .chunk = 0});
    result.model_stage.push_back(stage_of[node]);
    if (stage_of[node] != 0) continue;
    holdings.push_back({.rank = node, .chunk = kHead});
    result.model_stage.push_back(instance.num_stages());
  }
  const int32_t microbatches = instance.num_microbatches();
  const auto num_holdings = static_cast<int64_t>(holdings.size());
  if (microbatches * num_holdings > kMaxMicrobatchesTimesStages) {
    return InvalidArgument(
        "plan.microbatches: found {} of all replicas, expected at most {} with "
        "{} ranks",
        microbatches, kMaxMicrobatchesTimesStages / num_holdings,
        instance.num_nodes());
  }
  std::vector<std::vector<int32_t>> routes;
  result.visits.assign(instance.num_stages() + 1, 0);
  for (const NodePath& path : schedule.paths) {
    std::vector<int32_t>& route = routes.emplace_back();
    for (const int32_t node : path) {
      route.push_back(first_holding[node]);
      ++result.visits[stage_of[node]];
    }
    route.push_back(first_holding[path.front()] + kHead);
  }
  result.visits.back() = result.visits.front();
  result.program = BuildProgram(
      OrderOf(instance, schedule), std::move(holdings), microbatches,
      std::move(buckets), /*gather_parameters=*/false, std::move(routes));
  RETURN_IF_ERROR(ValidateProgram(result.program));
  return result;
}

}  // namespace trireme
