#include "scheduler/partial/validator.h"

#include <set>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::Status ValidatePath(const SkipInstance& instance,
                          const std::vector<int32_t>& stage_of,
                          int32_t microbatch, const NodePath& path) {
  if (static_cast<int32_t>(path.size()) != instance.path_length) {
    return InvalidArgument(
        "microbatch {}: found a path of {} nodes, expected {}", microbatch,
        path.size(), instance.path_length);
  }
  const int32_t data_node = DataNodeOf(instance, microbatch);
  if (path[0] != data_node) {
    return InvalidArgument(
        "microbatch {} node {}: found it first, expected its data node {}",
        microbatch, path[0], data_node);
  }
  const SkipRules& rules = instance.rules;
  StageVisits visits;
  for (size_t i = 1; i < path.size(); ++i) {
    if (path[i] < 0 || path[i] >= instance.num_nodes()) {
      return InvalidArgument("microbatch {}: found node {}, expected 0 to {}",
                             microbatch, path[i], instance.num_nodes() - 1);
    }
    const int32_t stage = stage_of[path[i]];
    if (VisitStage(rules, stage, visits)) continue;
    if ((visits.visited >> stage & 1) != 0) {
      return InvalidArgument(
          "microbatch {} node {}: found stage {} again, expected each stage "
          "at most once",
          microbatch, path[i], stage);
    }
    const int32_t back = visits.frontier - stage;
    if (back > 0) {
      return InvalidArgument(
          "microbatch {} node {}: found swap {} of distance {} (in all {}), "
          "expected at most {} of at most {} (in all {})",
          microbatch, path[i], visits.swaps + 1, back, visits.distance + back,
          rules.max_swaps, rules.max_swap_distance,
          rules.max_total_swap_distance);
    }
    return InvalidArgument(
        "microbatch {} node {}: found a forward jump of {}, expected at most "
        "{}",
        microbatch, path[i], -back, rules.max_forward_jump);
  }
  return absl::OkStatus();
}

absl::Status ValidateOrder(const SkipInstance& instance,
                           const SkipSchedule& schedule, int32_t node) {
  std::set<std::pair<int32_t, int32_t>> expected;
  for (size_t m = 0; m < schedule.paths.size(); ++m) {
    for (int32_t task = 0; task < instance.tasks_per_microbatch(); ++task) {
      if (TaskNode(schedule.paths[m], task) == node) {
        expected.insert({static_cast<int32_t>(m), task});
      }
    }
  }
  int32_t held = 0;
  for (const auto& [microbatch, task] : schedule.order[node]) {
    if (expected.erase({microbatch, task}) == 0) {
      return InvalidArgument(
          "microbatch {} node {}: found task {}, expected each task that its "
          "path (and the mirrored backward) brings there once",
          microbatch, node, task);
    }
    if (IsBackwardTask(instance.path_length, task)) --held;
    if (!IsForwardTask(instance.path_length, task)) continue;
    ++held;
    if (instance.slots_per_node > 0 && held > instance.slots_per_node) {
      return InvalidArgument(
          "microbatch {} node {}: found {} microbatches held at its forward, "
          "expected at most {}",
          microbatch, node, held, instance.slots_per_node);
    }
  }
  if (expected.empty()) return absl::OkStatus();
  return InvalidArgument("microbatch {} node {}: found no task {}, expected it",
                         expected.begin()->first, node,
                         expected.begin()->second);
}

}  // namespace

absl::Status ValidateSkipPaths(const SkipInstance& instance,
                               const std::vector<NodePath>& paths) {
  RETURN_IF_ERROR(CheckInstance(instance));
  if (static_cast<int32_t>(paths.size()) != instance.num_microbatches()) {
    return InvalidArgument(
        "paths: found {}, expected one for each of the {} "
        "microbatches",
        paths.size(), instance.num_microbatches());
  }
  const std::vector<int32_t> stage_of = StageOfNodes(instance);
  std::vector<int32_t> stage_visits(instance.num_stages(), 0);
  std::vector<int32_t> node_visits(instance.num_nodes(), 0);
  for (size_t m = 0; m < paths.size(); ++m) {
    RETURN_IF_ERROR(
        ValidatePath(instance, stage_of, static_cast<int32_t>(m), paths[m]));
    for (const int32_t node : paths[m]) {
      if (IsIdle(instance, node)) {
        return InvalidArgument(
            "microbatch {} node {}: found it on the path, expected no visit: "
            "it is idle",
            m, node);
      }
      ++stage_visits[stage_of[node]];
      if (++node_visits[node] > instance.max_visits_per_node &&
          instance.max_visits_per_node > 0) {
        return InvalidArgument(
            "microbatch {} node {}: found visit {}, expected at most {}", m,
            node, node_visits[node], instance.max_visits_per_node);
      }
    }
  }
  if (!instance.equal_stage_visits) return absl::OkStatus();
  const std::vector<bool> live = LiveStages(instance);
  int32_t first = 1;
  while (!live[first]) ++first;
  for (int32_t stage = first + 1; stage < instance.num_stages(); ++stage) {
    if (live[stage] && stage_visits[stage] != stage_visits[first]) {
      return InvalidArgument(
          "stage {}: found {} visits, expected {} as in stage {}", stage,
          stage_visits[stage], stage_visits[first], first);
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateSkipSchedule(const SkipInstance& instance,
                                  const SkipSchedule& schedule) {
  RETURN_IF_ERROR(ValidateSkipPaths(instance, schedule.paths));
  if (static_cast<int32_t>(schedule.order.size()) != instance.num_nodes()) {
    return InvalidArgument("order: found {} nodes, expected {}",
                           schedule.order.size(), instance.num_nodes());
  }
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    RETURN_IF_ERROR(ValidateOrder(instance, schedule, node));
  }
  return TimeSkipSchedule(instance, schedule).status();
}

}  // namespace trireme
