#include "scheduler/partial/timing.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

int32_t KindOf(int32_t path_length, int32_t task) {
  if (task < path_length) return 0;
  return task == path_length ? 1 : 2;
}

}  // namespace

SkipTraffic::SkipTraffic(const SkipInstance& instance) : instance_(instance) {
  if (!contended()) return;
  const auto nodes = static_cast<size_t>(instance.num_nodes());
  link_free_s_.assign(nodes * nodes, 0);
  int32_t channels = 0;
  for (const std::vector<SkipLink>& row : instance.links) {
    for (const SkipLink& link : row) {
      for (const SkipLink::Channel& channel : link.channels) {
        channels = std::max(channels, channel.number + 1);
      }
    }
  }
  channel_free_s_.assign(channels, 0);
}

void SkipTraffic::Clear() {
  std::fill(link_free_s_.begin(), link_free_s_.end(), 0);
  std::fill(channel_free_s_.begin(), channel_free_s_.end(), 0);
}

double SkipTraffic::Send(int32_t from, int32_t to, double ready_s) {
  const double transfer_s = instance_.transfer_s[from][to];
  if (!contended()) return ready_s + transfer_s;
  const SkipLink& link = instance_.links[from][to];
  double& free_s =
      link_free_s_[static_cast<size_t>(from) * instance_.links.size() + to];
  double start_s = std::max(ready_s, free_s);
  for (const SkipLink::Channel& channel : link.channels) {
    if (channel.number < 0) continue;
    start_s = std::max(start_s, channel_free_s_[channel.number]);
  }
  free_s = start_s + link.busy_s;
  for (const SkipLink::Channel& channel : link.channels) {
    if (channel.number < 0) continue;
    channel_free_s_[channel.number] = start_s + channel.busy_s;
  }
  return start_s + transfer_s;
}

absl::StatusOr<SkipTimes> TimeSkipSchedule(const SkipInstance& instance,
                                           const SkipSchedule& schedule) {
  const int32_t tasks = instance.tasks_per_microbatch();
  SkipTimes times;
  times.start_s.assign(schedule.paths.size() * tasks, 0);
  std::vector<int32_t> arrived(schedule.paths.size(), 0);
  std::vector<double> arrived_s(schedule.paths.size(), 0);
  std::vector<size_t> next(schedule.order.size(), 0);
  std::vector<double> free_s(schedule.order.size(), 0);
  std::vector<int32_t> held(schedule.order.size(), 0);
  // Messages in the order in which they are ready, ties as in SkipDispatcher:
  // (time, -(microbatch * tasks + task)). None that is found later leaves
  // before one that has left.
  std::priority_queue<std::pair<double, int32_t>,
                      std::vector<std::pair<double, int32_t>>, std::greater<>>
      leaving;
  SkipTraffic traffic(instance);
  // Runs the node's tasks as far as their messages have arrived.
  const auto advance = [&](int32_t node) {
    while (next[node] < schedule.order[node].size()) {
      const auto [microbatch, task] = schedule.order[node][next[node]];
      if (arrived[microbatch] != task) break;
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
      const int32_t code = microbatch * tasks + task;
      times.start_s[code] = start;
      free_s[node] = end + instance.gap_s;
      ++next[node];
      // On its way: no task of it can run.
      arrived[microbatch] = tasks;
      if (task + 1 == tasks) {
        times.makespan_s = std::max(times.makespan_s, end);
      } else {
        leaving.emplace(end, -code);
      }
    }
    return absl::OkStatus();
  };
  for (size_t node = 0; node < schedule.order.size(); ++node) {
    RETURN_IF_ERROR(advance(static_cast<int32_t>(node)));
  }
  while (!leaving.empty()) {
    const auto [end, negated] = leaving.top();
    leaving.pop();
    const int32_t microbatch = -negated / tasks;
    const int32_t task = -negated % tasks;
    const NodePath& path = schedule.paths[microbatch];
    const int32_t to = TaskNode(path, task + 1);
    arrived_s[microbatch] = traffic.Send(TaskNode(path, task), to, end);
    arrived[microbatch] = task + 1;
    RETURN_IF_ERROR(advance(to));
  }
  for (size_t node = 0; node < schedule.order.size(); ++node) {
    if (next[node] == schedule.order[node].size()) continue;
    const auto [microbatch, task] = schedule.order[node][next[node]];
    return InvalidArgument(
        "microbatch {} node {}: found task {} waiting for ever, its "
        "predecessor being {}; expected orders without a cycle",
        microbatch, node, task, arrived[microbatch]);
  }
  return times;
}

SkipDispatcher::SkipDispatcher(const SkipInstance& instance)
    : instance_(instance),
      traffic_(instance),
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
  const int32_t code = microbatch * tasks + task + 1;
  if (traffic_.contended()) {
    Push(end_s, static_cast<int32_t>(paths_->size()) * tasks + code);
  } else {
    Push(end_s + instance_.transfer_s[node_index][TaskNode(path, task + 1)],
         code);
  }
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
  traffic_.Clear();
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
    if (event.code >= microbatches * tasks) {
      const int32_t code = event.code - microbatches * tasks;
      const NodePath& path = paths[code / tasks];
      const int32_t task = code % tasks;
      Push(traffic_.Send(TaskNode(path, task - 1), TaskNode(path, task),
                         event.time_s),
           code);
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
