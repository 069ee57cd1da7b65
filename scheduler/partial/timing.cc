#include "scheduler/partial/timing.h"

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
  SkipDispatcher dispatcher(instance);
  if (dispatcher.RunInOrder(schedule)) {
    return SkipTimes{.makespan_s = dispatcher.makespan_s(),
                     .start_s = dispatcher.start_s()};
  }
  size_t node = 0;
  while (dispatcher.order()[node].size() == schedule.order[node].size()) ++node;
  const auto [microbatch, task] =
      schedule.order[node][dispatcher.order()[node].size()];
  return InvalidArgument(
      "microbatch {} node {}: found task {} waiting for ever, expected orders "
      "without a cycle that need no more than the {} slots of a node (0: any)",
      microbatch, node, task, instance.slots_per_node);
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

int32_t SkipDispatcher::BestReady(int32_t node_index) const {
  const Node& node = nodes_[node_index];
  const int32_t length = instance_.path_length;
  const int32_t tasks = instance_.tasks_per_microbatch();
  const bool full =
      instance_.slots_per_node > 0 && node.held >= instance_.slots_per_node;
  int32_t next = -1;
  if (given_ != nullptr) {
    const std::vector<SkipTask>& given = (*given_)[node_index];
    const size_t done = order_[node_index].size();
    if (done == given.size()) return -1;
    next = given[done].microbatch * tasks + given[done].task;
  }
  int32_t best = -1;
  double best_key = 0;
  for (size_t i = 0; i < node.ready.size(); ++i) {
    const int32_t kind = KindOf(length, node.ready[i] % tasks);
    if (full && kind == 0) continue;
    if (given_ != nullptr) {
      if (node.ready[i] == next) return static_cast<int32_t>(i);
      continue;
    }
    const double key = (*keys_)[node.ready[i] / tasks * 3 + kind];
    if (best < 0 || key < best_key ||
        (key == best_key && node.ready[i] < node.ready[best])) {
      best = static_cast<int32_t>(i);
      best_key = key;
    }
  }
  return best;
}

void SkipDispatcher::TakeTask(int32_t node_index, double now_s) {
  Node& node = nodes_[node_index];
  if (node.free_s > now_s) return;
  const int32_t best = BestReady(node_index);
  if (best < 0) return;
  const int32_t length = instance_.path_length;
  const int32_t tasks = instance_.tasks_per_microbatch();
  const int32_t microbatch = node.ready[best] / tasks;
  const int32_t task = node.ready[best] % tasks;
  node.ready[best] = node.ready.back();
  node.ready.pop_back();
  const NodePath& path = (*paths_)[microbatch];
  const double end_s = now_s + TaskSeconds(instance_, path, task);
  if (IsForwardTask(length, task)) ++node.held;
  if (IsBackwardTask(length, task)) --node.held;
  order_[node_index].push_back({microbatch, task});
  start_s_[microbatch * tasks + task] = now_s;
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
  keys_ = &keys;
  given_ = nullptr;
  return Simulate(paths);
}

bool SkipDispatcher::RunInOrder(const SkipSchedule& schedule) {
  given_ = &schedule.order;
  return Simulate(schedule.paths);
}

bool SkipDispatcher::Simulate(const std::vector<NodePath>& paths) {
  paths_ = &paths;
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
  start_s_.assign(paths.size() * tasks, 0);
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
