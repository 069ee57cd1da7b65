#include "tools/bench/published/skippipe_simulator.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr double kGapAfterTask = 0.13;
constexpr double kGapAfterLaunch = 0.09;
constexpr double kRetry = 0.1;
constexpr int32_t kSweeps = 15;
constexpr int32_t kLastTick = 10000;
// A launch's arrival, later than any message's.
constexpr double kLaunchArrival = 10000;

// A task waiting at its node, or done.
struct Visit {
  int32_t launch = 0;
  int32_t task = 0;
  double ready_s = 0;
  double arrival_s = 0;
  bool done = false;
};

struct Node {
  std::vector<Visit> visits;
  double free_s = 0;
  int32_t free_slots = 0;
  // Lanes whose wave 0 is under way.
  std::set<int32_t> busy_lanes;
};

class Simulation {
 public:
  Simulation(const SkipInstance& instance,
             const std::vector<PublishedLaunch>& launches)
      : instance_(instance), launches_(launches), nodes_(instance.num_nodes()) {
    for (Node& node : nodes_) node.free_slots = instance.slots_per_node;
    for (size_t i = 0; i < launches.size(); ++i) {
      nodes_[launches[i].path[0]].visits.push_back(
          {static_cast<int32_t>(i), 0, launches[i].ready_s, kLaunchArrival});
    }
  }

  absl::StatusOr<double> Run() {
    for (int32_t tick = 0; tick < kLastTick; ++tick) {
      for (int32_t sweep = 0; sweep < kSweeps; ++sweep) {
        for (Node& node : nodes_) Serve(node, tick);
      }
      if (ended_ == launches_.size()) return makespan_s_;
    }
    return StatusOf(absl::StatusCode::kDeadlineExceeded,
                    "found {} of {} microbatches ended after {} s", ended_,
                    launches_.size(), kLastTick);
  }

 private:
  // What the node can take in this tick.
  void Serve(Node& node, int32_t tick) {
    std::stable_sort(node.visits.begin(), node.visits.end(),
                     [](const Visit& a, const Visit& b) {
                       return std::pair(a.ready_s, a.arrival_s) <
                              std::pair(b.ready_s, b.arrival_s);
                     });
    for (Visit& visit : node.visits) {
      if (std::floor(visit.ready_s) != tick) continue;
      if (visit.ready_s < node.free_s) {
        visit.ready_s = node.free_s;
        continue;
      }
      if (visit.done) continue;
      const PublishedLaunch& launch = launches_[visit.launch];
      const int32_t length = static_cast<int32_t>(launch.path.size());
      if (IsForwardTask(length, visit.task) && node.free_slots <= 0) {
        visit.ready_s += kRetry;
        continue;
      }
      if (visit.task == 0 && node.busy_lanes.contains(launch.lane)) continue;
      Start(node, visit, launch);
    }
  }

  void Start(Node& node, Visit& visit, const PublishedLaunch& launch) {
    const int32_t length = static_cast<int32_t>(launch.path.size());
    const double start = visit.ready_s;
    const double end = start + TaskSeconds(instance_, launch.path, visit.task);
    if (IsForwardTask(length, visit.task)) --node.free_slots;
    if (IsBackwardTask(length, visit.task)) ++node.free_slots;
    if (visit.task == 0 && launch.wave == 0) {
      node.busy_lanes.insert(launch.lane);
    }
    if (visit.task == 2 * length) {
      node.busy_lanes.erase(launch.lane);
      makespan_s_ = std::max(makespan_s_, end);
      ++ended_;
    } else {
      const int32_t from = TaskNode(launch.path, visit.task);
      const int32_t to = TaskNode(launch.path, visit.task + 1);
      const double arrival = end + instance_.transfer_s[from][to];
      nodes_[to].visits.push_back(
          {visit.launch, visit.task + 1, arrival, arrival});
    }
    node.free_s = end + (visit.task == 0 ? kGapAfterLaunch : kGapAfterTask);
    for (Visit& other : node.visits) {
      if (other.launch == visit.launch) continue;
      if (start <= other.ready_s && node.free_s > other.ready_s) {
        other.ready_s = node.free_s;
      }
    }
    visit.done = true;
  }

  const SkipInstance& instance_;
  const std::vector<PublishedLaunch>& launches_;
  std::vector<Node> nodes_;
  size_t ended_ = 0;
  double makespan_s_ = 0;
};

}  // namespace

absl::StatusOr<double> SimulateAsPublished(
    const SkipInstance& instance,
    const std::vector<PublishedLaunch>& launches) {
  return Simulation(instance, launches).Run();
}

}  // namespace trireme
