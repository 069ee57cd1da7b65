#include "scheduler/partial/instance.h"

#include <algorithm>

#include "runtime/core/status.h"

namespace trireme {

int32_t DataNodeOf(const SkipInstance& instance, int32_t microbatch) {
  return instance.groups[0][microbatch / instance.microbatches_per_data_node];
}

bool IsIdle(const SkipInstance& instance, int32_t node) {
  return std::count(instance.idle.begin(), instance.idle.end(), node) > 0;
}

std::vector<bool> LiveStages(const SkipInstance& instance) {
  std::vector<bool> live;
  for (const std::vector<int32_t>& group : instance.groups) {
    live.push_back(!std::all_of(group.begin(), group.end(), [&](int32_t node) {
      return IsIdle(instance, node);
    }));
  }
  return live;
}

bool VisitsDivide(const SkipInstance& instance) {
  const std::vector<bool> live = LiveStages(instance);
  const auto others = std::count(live.begin() + 1, live.end(), true);
  return instance.num_microbatches() * (instance.path_length - 1) % others == 0;
}

int32_t VisitsPerStage(const SkipInstance& instance) {
  const std::vector<bool> live = LiveStages(instance);
  const auto others = std::count(live.begin() + 1, live.end(), true);
  return static_cast<int32_t>(instance.num_microbatches() *
                              (instance.path_length - 1) / others);
}

double BackwardSeconds(const SkipInstance& instance, int32_t node) {
  return instance.backward_s.empty()
             ? instance.forward_s[node] * instance.backward_over_forward
             : instance.backward_s[node];
}

double LossSeconds(const SkipInstance& instance, int32_t node) {
  return instance.loss_s.empty()
             ? instance.forward_s[node] * instance.loss_over_forward
             : instance.loss_s[node];
}

std::vector<int32_t> StageOfNodes(const SkipInstance& instance) {
  std::vector<int32_t> stage_of(instance.num_nodes(), -1);
  for (int32_t stage = 0; stage < instance.num_stages(); ++stage) {
    for (const int32_t node : instance.groups[stage]) stage_of[node] = stage;
  }
  return stage_of;
}

absl::Status CheckInstance(const SkipInstance& instance) {
  const int32_t nodes = instance.num_nodes();
  if (nodes < 1 || static_cast<int32_t>(instance.transfer_s.size()) != nodes) {
    return InvalidArgument(
        "transfer_s: found {} rows, expected one for each of the {} nodes",
        instance.transfer_s.size(), nodes);
  }
  for (int32_t node = 0; node < nodes; ++node) {
    const std::vector<double>& row = instance.transfer_s[node];
    if (static_cast<int32_t>(row.size()) != nodes) {
      return InvalidArgument("transfer_s[{}]: found {} entries, expected {}",
                             node, row.size(), nodes);
    }
    if (instance.forward_s[node] <= 0) {
      return InvalidArgument("forward_s[{}]: found {}, expected more than 0",
                             node, instance.forward_s[node]);
    }
    if (*std::min_element(row.begin(), row.end()) < 0) {
      return InvalidArgument("transfer_s[{}]: found {}, expected at least 0",
                             node, *std::min_element(row.begin(), row.end()));
    }
  }
  if (instance.num_stages() > kMaxSkipStages) {
    return InvalidArgument("groups: found {} stages, expected at most {}",
                           instance.num_stages(), kMaxSkipStages);
  }
  if (instance.path_length < 2 ||
      instance.path_length > instance.num_stages()) {
    return InvalidArgument("path_length: found {}, expected 2 to the {} stages",
                           instance.path_length, instance.num_stages());
  }
  if (instance.microbatches_per_data_node < 1) {
    return InvalidArgument(
        "microbatches_per_data_node: found {}, expected at least 1",
        instance.microbatches_per_data_node);
  }
  std::vector<int32_t> times(nodes, 0);
  for (int32_t stage = 0; stage < instance.num_stages(); ++stage) {
    if (instance.groups[stage].empty()) {
      return InvalidArgument("groups[{}]: found no node, expected at least 1",
                             stage);
    }
    for (const int32_t node : instance.groups[stage]) {
      if (node < 0 || node >= nodes || ++times[node] > 1) {
        return InvalidArgument(
            "groups[{}]: found node {}, expected each of the nodes 0 to {} in "
            "one group",
            stage, node, nodes - 1);
      }
    }
  }
  const std::vector<int32_t>& data_nodes = instance.groups[0];
  for (const int32_t node : instance.idle) {
    if (node < 0 || node >= nodes) {
      return InvalidArgument("without: found rank {}, expected 0 to {}", node,
                             nodes - 1);
    }
    if (std::count(data_nodes.begin(), data_nodes.end(), node) > 0) {
      return InvalidArgument(
          "without: found rank {} of the first stage, expected ranks of other "
          "stages: its microbatches begin and end there",
          node);
    }
  }
  const std::vector<bool> live = LiveStages(instance);
  const auto stages = std::count(live.begin(), live.end(), true);
  if (instance.path_length > stages) {
    return InvalidArgument(
        "without: found {} stages that keep a rank, expected at least the {} "
        "that a microbatch visits (plan.skip.stages_per_microbatch)",
        stages, instance.path_length);
  }
  const auto sized = [nodes](const auto& list) {
    return list.empty() || static_cast<int32_t>(list.size()) == nodes;
  };
  if (!sized(instance.links) || !sized(instance.backward_s) ||
      !sized(instance.loss_s)) {
    return InvalidArgument(
        "links, backward_s, loss_s: found {}, {} and {} entries, expected none "
        "or one for each of the {} nodes",
        instance.links.size(), instance.backward_s.size(),
        instance.loss_s.size(), nodes);
  }
  return absl::OkStatus();
}

int32_t TaskNode(const NodePath& path, int32_t task) {
  const int32_t length = static_cast<int32_t>(path.size());
  if (task < length) return path[task];
  return task == length ? path[0] : path[2 * length - task];
}

double TaskSeconds(const SkipInstance& instance, const NodePath& path,
                   int32_t task) {
  const int32_t length = static_cast<int32_t>(path.size());
  const int32_t node = TaskNode(path, task);
  if (IsForwardTask(length, task)) return instance.forward_s[node];
  return task == length ? LossSeconds(instance, node)
                        : BackwardSeconds(instance, node);
}

double SoloSeconds(const SkipInstance& instance, const NodePath& path) {
  double seconds = 0;
  const int32_t tasks = 2 * static_cast<int32_t>(path.size()) + 1;
  for (int32_t task = 0; task < tasks; ++task) {
    seconds += TaskSeconds(instance, path, task);
    if (task > 0) {
      seconds +=
          instance.transfer_s[TaskNode(path, task - 1)][TaskNode(path, task)];
    }
  }
  return seconds;
}

bool VisitStage(const SkipRules& rules, int32_t stage, StageVisits& visits) {
  if ((visits.visited >> stage & 1) != 0) return false;
  StageVisits after = visits;
  after.visited |= uint64_t{1} << stage;
  const int32_t back = visits.frontier - stage;
  if (back > 0) {
    ++after.swaps;
    after.distance += back;
    if (back > rules.max_swap_distance || after.swaps > rules.max_swaps ||
        after.distance > rules.max_total_swap_distance) {
      return false;
    }
  } else {
    if (-back > rules.max_forward_jump) return false;
    after.frontier = stage;
  }
  visits = after;
  return true;
}

}  // namespace trireme
