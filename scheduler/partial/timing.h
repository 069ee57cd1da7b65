// How long a step takes: by a fixed order of the tasks on every node, or by
// dispatching whatever is ready (which yields such an order).
//
// A node runs one task at a time (TC2) and rests gap_s after each. A task is
// ready when the task before it has ended and its message has arrived; a
// message waits for those that were ready before it where the instance has
// links that are occupied. A forward also needs a free slot (TC1). The makespan
// is the end of the last backward on a data node.

#ifndef TRIREME_SCHEDULER_PARTIAL_TIMING_H_
#define TRIREME_SCHEDULER_PARTIAL_TIMING_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"

namespace trireme {

struct SkipTask {
  int32_t microbatch = 0;
  int32_t task = 0;

  friend bool operator==(const SkipTask&, const SkipTask&) = default;
};

struct SkipSchedule {
  // [microbatch].
  std::vector<NodePath> paths;
  // [node]: every task that its microbatches bring there.
  std::vector<std::vector<SkipTask>> order;
};

struct SkipTimes {
  double makespan_s = 0;
  // Of task t of microbatch m: [m * tasks_per_microbatch + t].
  std::vector<double> start_s;
};

// Earliest times of a schedule whose paths and orders list the right tasks
// (ValidateSkipSchedule). InvalidArgument if the orders wait for one another
// in a cycle or a node's order needs more slots than it has.
absl::StatusOr<SkipTimes> TimeSkipSchedule(const SkipInstance& instance,
                                           const SkipSchedule& schedule);

// What messages occupy, and until when.
class SkipTraffic {
 public:
  // The instance must outlive this object.
  explicit SkipTraffic(const SkipInstance& instance);

  // Whether messages wait for one another at all.
  bool contended() const { return !instance_.links.empty(); }
  void Clear();
  // When a message arrives that is ready to leave at `ready_s`. Of messages
  // that wait for one another, those ready first are to be sent first.
  double Send(int32_t from, int32_t to, double ready_s);

 private:
  const SkipInstance& instance_;
  std::vector<double> link_free_s_;  // [from * nodes + to]
  std::vector<double> channel_free_s_;
};

// Simulates dispatching: a node that is free takes, of the tasks that are
// ready, the one of the lowest key. Reuses its memory from run to run; one
// thread at a time.
class SkipDispatcher {
 public:
  // The instance must outlive this object.
  explicit SkipDispatcher(const SkipInstance& instance);

  // paths[m] of any microbatches (not only of all), keys[3 m + kind]: kind 0
  // forward, 1 loss, 2 backward. False if it comes to
  // a standstill: nodes that wait for one another's slots.
  bool Run(const std::vector<NodePath>& paths, const std::vector<double>& keys);
  // The same where each node takes its tasks in the schedule's order.
  bool RunInOrder(const SkipSchedule& schedule);

  // Of the last run.
  double makespan_s() const { return makespan_s_; }
  // Mean over microbatches of the end of the last backward.
  double mean_end_s() const { return mean_end_s_; }
  const std::vector<std::vector<SkipTask>>& order() const { return order_; }
  // As SkipTimes has them.
  const std::vector<double>& start_s() const { return start_s_; }

 private:
  struct Event {
    double time_s;
    // (microbatch, task) arrives: m * tasks + t; its message leaves: the same
    // after all of these; or, negative, node ~code may take a task. Messages
    // leave first at equal times, then arrive.
    int32_t code;
    bool operator>(const Event& other) const {
      if (time_s != other.time_s) return time_s > other.time_s;
      return code < other.code;
    }
  };
  struct Node {
    double free_s = 0;
    int32_t held = 0;
    std::vector<int32_t> ready;
  };

  bool Simulate(const std::vector<NodePath>& paths);
  void Push(double time_s, int32_t code);
  // Which of the node's ready tasks it takes; -1: none.
  int32_t BestReady(int32_t node_index) const;
  void TakeTask(int32_t node_index, double now_s);

  const SkipInstance& instance_;
  SkipTraffic traffic_;
  const std::vector<NodePath>* paths_ = nullptr;
  const std::vector<double>* keys_ = nullptr;
  // By node; null: by keys.
  const std::vector<std::vector<SkipTask>>* given_ = nullptr;
  std::vector<Event> events_;
  std::vector<Node> nodes_;
  std::vector<std::vector<SkipTask>> order_;
  std::vector<double> end_s_;    // [microbatch]
  std::vector<double> start_s_;  // [microbatch * tasks + task]
  double makespan_s_ = 0;
  double mean_end_s_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_TIMING_H_
