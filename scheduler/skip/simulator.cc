#include "scheduler/skip/simulator.h"

#include <algorithm>
#include <functional>

#include "runtime/core/status.h"

namespace trireme {
namespace {

int32_t KindOf(int32_t path_length, int32_t task) {
  if (task < path_length) return 0;
  return task == path_length ? 1 : 2;
}

}  // namespace

absl::StatusOr<SkipTimes> TimeSkipSchedule(const SkipInstance& instance,
                                           const SkipSchedule& schedule) {
  const int32_t tasks = instance.tasks_per_microbatch();
  SkipTimes times;
  times.start_s.assign(schedule.paths.size() * tasks, 0);
  std::vector<int32_t> done(schedule.paths.size(), 0);
  std::vector<double> arrived_s(schedule.paths.size(), 0);
  std::vector<size_t> next(schedule.order.size(), 0);
  std::vector<double> free_s(schedule.order.size(), 0);
  std::vector<int32_t> held(schedule.order.size(), 0);
  std::vector<int32_t> to_try(schedule.order.size());
  for (size_t node = 0; node < to_try.size(); ++node) to_try[node] = node;
  while (!to_try.empty()) {
    const int32_t node = to_try.back();
    to_try.pop_back();
    while (next[node] < schedule.order[node].size()) {
      const auto [microbatch, task] = schedule.order[node][next[node]];
      if (done[microbatch] != task) break;
      const NodePath& path = schedule.paths[microbatch];
      if (IsForwardTask(instance.path_length, task) &&
          ++held[node] > instance.slots_per_node &&
          instance.slots_per_node > 0) {
        return InvalidArgument(
            "microbatch {} node {}: found {} microbatches held at its "
            "forward, expected at most {}",
            microbatch, node, held[node], instance.slots_per_node);
      }
      if (IsBackwardTask(instance.path_length, task)) --held[node];
      const double start = std::max(free_s[node], arrived_s[microbatch]);
      const double end = start + TaskSeconds(instance, path, task);
      times.start_s[microbatch * tasks + task] = start;
      free_s[node] = end + instance.gap_s;
      ++done[microbatch];
      ++next[node];
      if (task + 1 == tasks) {
        times.makespan_s = std::max(times.makespan_s, end);
        continue;
      }
      const int32_t to = TaskNode(path, task + 1);
      arrived_s[microbatch] = end + instance.transfer_s[node][to];
      to_try.push_back(to);
    }
  }
  for (size_t node = 0; node < schedule.order.size(); ++node) {
    if (next[node] == schedule.order[node].size()) continue;
    const auto [microbatch, task] = schedule.order[node][next[node]];
    return InvalidArgument(
        "microbatch {} node {}: found task {} waiting for ever, its "
        "predecessor being {}; expected orders without a cycle",
        microbatch, node, task, done[microbatch]);
  }
  return times;
}

SkipDispatcher::SkipDispatcher(const SkipInstance& instance)
    : instance_(instance),
      nodes_(instance.num_nodes()),
      order_(instance.num_nodes()) {}

void SkipDispatcher::Push(double time_s, int32_t code) {
  events_.push_back({time_s, code});
  std::push_heap(events_.begin(), events_.end(), std::greater<>());
}

void SkipDispatcher::TakeTask(int32_t node_index, double now_s) {
  Node& node = nodes_[node_index];
  if (node.free_s > now_s) return;
  const int32_t length = instance_.path_length;
  const int32_t tasks = instance_.tasks_per_microbatch();
  const bool full =
      instance_.slots_per_node > 0 && node.held >= instance_.slots_per_node;
  int32_t best = -1;
  double best_key = 0;
  for (size_t i = 0; i < node.ready.size(); ++i) {
    const int32_t kind = KindOf(length, node.ready[i] % tasks);
    if (full && kind == 0) continue;
    const double key = (*keys_)[node.ready[i] / tasks * 3 + kind];
    if (best < 0 || key < best_key ||
        (key == best_key && node.ready[i] < node.ready[best])) {
      best = static_cast<int32_t>(i);
      best_key = key;
    }
  }
  if (best < 0) return;
  const int32_t microbatch = node.ready[best] / tasks;
  const int32_t task = node.ready[best] % tasks;
  node.ready[best] = node.ready.back();
  node.ready.pop_back();
  const NodePath& path = (*paths_)[microbatch];
  const double end_s = now_s + TaskSeconds(instance_, path, task);
  if (IsForwardTask(length, task)) ++node.held;
  if (IsBackwardTask(length, task)) --node.held;
  order_[node_index].push_back({microbatch, task});
  node.free_s = end_s + instance_.gap_s;
  Push(node.free_s, ~node_index);
  if (task + 1 == tasks) {
    end_s_[microbatch] = end_s;
    return;
  }
  Push(end_s + instance_.transfer_s[node_index][TaskNode(path, task + 1)],
       microbatch * tasks + task + 1);
}

bool SkipDispatcher::Run(const std::vector<NodePath>& paths,
                         const std::vector<double>& keys) {
  paths_ = &paths;
  keys_ = &keys;
  events_.clear();
  for (Node& node : nodes_) {
    node.free_s = 0;
    node.held = 0;
    node.ready.clear();
  }
  for (auto& order : order_) order.clear();
  const int32_t tasks = instance_.tasks_per_microbatch();
  const int32_t microbatches = static_cast<int32_t>(paths.size());
  end_s_.assign(microbatches, -1);
  for (int32_t m = 0; m < microbatches; ++m) {
    nodes_[paths[m][0]].ready.push_back(m * tasks);
  }
  for (int32_t node = 0; node < instance_.num_nodes(); ++node) {
    if (!nodes_[node].ready.empty()) Push(0, ~node);
  }
  while (!events_.empty()) {
    std::pop_heap(events_.begin(), events_.end(), std::greater<>());
    const Event event = events_.back();
    events_.pop_back();
    if (event.code < 0) {
      TakeTask(~event.code, event.time_s);
      continue;
    }
    const int32_t at = TaskNode(paths[event.code / tasks], event.code % tasks);
    nodes_[at].ready.push_back(event.code);
    if (nodes_[at].free_s <= event.time_s) Push(event.time_s, ~at);
  }
  makespan_s_ = 0;
  double sum = 0;
  for (const double end_s : end_s_) {
    if (end_s < 0) return false;
    makespan_s_ = std::max(makespan_s_, end_s);
    sum += end_s;
  }
  mean_end_s_ = sum / microbatches;
  return true;
}

}  // namespace trireme
