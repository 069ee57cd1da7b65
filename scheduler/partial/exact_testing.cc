#include "scheduler/partial/exact_testing.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/core/status.h"
#include "scheduler/partial/candidate_paths.h"

namespace trireme {
namespace {

// Times closer than this are equal.
constexpr double kTolerance = 1e-9;

class Solver {
 public:
  Solver(const SkipInstance& instance, int64_t limit)
      : instance_(instance),
        limit_(limit),
        stage_of_(StageOfNodes(instance)),
        tasks_(instance.tasks_per_microbatch()),
        visits_per_stage_(VisitsPerStage(instance)),
        stage_visits_(instance.num_stages(), 0),
        node_visits_(instance.num_nodes(), 0),
        node_load_s_(instance.num_nodes(), 0) {
    for (const int32_t node : instance.groups[0]) {
      candidates_.push_back(CandidatePaths(instance, node).paths);
    }
    const int32_t microbatches = instance.num_microbatches();
    done_.assign(microbatches, 0);
    arrived_s_.assign(microbatches, 0);
    // Without a limit on slots a forward that ends early harms nobody, so
    // active schedules suffice.
    slots_bind_ =
        instance.slots_per_node > 0 && instance.slots_per_node < microbatches;
    best_.makespan_s = std::numeric_limits<double>::infinity();
  }

  // What only a faster schedule replaces.
  void Begin(const SkipSchedule& incumbent, double makespan_s) {
    best_.schedule = incumbent;
    best_.makespan_s = makespan_s;
  }

  absl::StatusOr<ExactResult> Run() {
    ChoosePath();
    if (best_.visited >= limit_) {
      return ResourceExhausted(
          "exact solver: found no proof within {} partial schedules and "
          "choices of paths",
          limit_);
    }
    if (best_.schedule.paths.empty()) {
      return NotFound("exact solver: found no paths that keep the constraints");
    }
    return std::move(best_);
  }

 private:
  struct Option {
    int32_t microbatch;
    int32_t node;
    double start_s;
    double end_s;
  };

  // Microbatches of one data node are interchangeable: their paths ascend.
  void ChoosePath(int32_t first = 0) {
    if (++best_.visited >= limit_) return;
    const int32_t m = static_cast<int32_t>(paths_.size());
    if (m == instance_.num_microbatches()) {
      Schedule();
      return;
    }
    const int32_t data_index = m / instance_.microbatches_per_data_node;
    if (m % instance_.microbatches_per_data_node == 0) first = 0;
    const auto& candidates = candidates_[data_index];
    for (size_t i = first; i < candidates.size(); ++i) {
      // They come with the fastest first.
      if (candidates[i].solo_s > best_.makespan_s - kTolerance) break;
      if (!Visit(candidates[i].path, 1)) {
        Visit(candidates[i].path, -1);
        continue;
      }
      paths_.push_back(candidates[i].path);
      ChoosePath(static_cast<int32_t>(i));
      paths_.pop_back();
      Visit(candidates[i].path, -1);
    }
  }

  // Counts the path's visits up or down; whether they are within limits and
  // leave every node less to do than the best schedule takes.
  bool Visit(const NodePath& path, int32_t change) {
    bool within = true;
    for (size_t i = 0; i < path.size(); ++i) {
      const int32_t visits = node_visits_[path[i]] += change;
      within &= instance_.max_visits_per_node == 0 ||
                visits <= instance_.max_visits_per_node;
      const int32_t of_stage = stage_visits_[stage_of_[path[i]]] += change;
      within &= i == 0 || !instance_.equal_stage_visits ||
                of_stage <= visits_per_stage_;
      double load_s =
          TaskSeconds(instance_, path, static_cast<int32_t>(i)) +
          TaskSeconds(instance_, path, tasks_ - 1 - static_cast<int32_t>(i)) +
          2 * instance_.gap_s;
      if (i == 0) {
        load_s += TaskSeconds(instance_, path, instance_.path_length) +
                  instance_.gap_s;
      }
      const double loaded_s = node_load_s_[path[i]] += change * load_s;
      within &= loaded_s - instance_.gap_s < best_.makespan_s - kTolerance;
    }
    return within;
  }

  void Schedule() {
    const int32_t nodes = instance_.num_nodes();
    free_s_.assign(nodes, 0);
    held_.assign(nodes, 0);
    left_s_.assign(nodes, 0);
    order_.assign(nodes, {});
    tail_s_.assign(paths_.size(), std::vector<double>(tasks_, 0));
    for (size_t m = 0; m < paths_.size(); ++m) {
      for (int32_t task = tasks_ - 1; task >= 0; --task) {
        const int32_t node = TaskNode(paths_[m], task);
        const double seconds = TaskSeconds(instance_, paths_[m], task);
        tail_s_[m][task] = seconds;
        if (task + 1 < tasks_) {
          tail_s_[m][task] +=
              instance_.transfer_s[node][TaskNode(paths_[m], task + 1)] +
              tail_s_[m][task + 1];
        }
        left_s_[node] += seconds + instance_.gap_s;
      }
    }
    Branch(0);
  }

  // No completion of the partial schedule ends before this.
  double Bound() const {
    double bound = 0;
    std::vector<double> earliest(instance_.num_nodes(),
                                 std::numeric_limits<double>::infinity());
    std::vector<double> after(instance_.num_nodes(),
                              std::numeric_limits<double>::infinity());
    for (size_t m = 0; m < paths_.size(); ++m) {
      if (done_[m] == tasks_) continue;
      double ready_s =
          std::max(arrived_s_[m], free_s_[TaskNode(paths_[m], done_[m])]);
      bound = std::max(bound, ready_s + tail_s_[m][done_[m]]);
      for (int32_t task = done_[m]; task < tasks_; ++task) {
        const int32_t node = TaskNode(paths_[m], task);
        earliest[node] = std::min(earliest[node], ready_s);
        const double seconds = TaskSeconds(instance_, paths_[m], task);
        after[node] = std::min(after[node], tail_s_[m][task] - seconds);
        if (task + 1 == tasks_) break;
        ready_s +=
            seconds + instance_.transfer_s[node][TaskNode(paths_[m], task + 1)];
      }
    }
    for (int32_t node = 0; node < instance_.num_nodes(); ++node) {
      if (left_s_[node] <= 0 || after[node] > 1e300) continue;
      bound =
          std::max(bound, std::max(free_s_[node], earliest[node]) +
                              left_s_[node] - instance_.gap_s + after[node]);
    }
    return bound;
  }

  std::vector<Option> Options() const {
    std::vector<Option> options;
    for (size_t m = 0; m < paths_.size(); ++m) {
      if (done_[m] == tasks_) continue;
      const int32_t node = TaskNode(paths_[m], done_[m]);
      if (slots_bind_ && IsForwardTask(instance_.path_length, done_[m]) &&
          held_[node] >= instance_.slots_per_node) {
        continue;
      }
      const double start = std::max(arrived_s_[m], free_s_[node]);
      options.push_back({static_cast<int32_t>(m), node, start,
                         start + TaskSeconds(instance_, paths_[m], done_[m])});
    }
    return options;
  }

  // Whether a microbatch before m is in the same state with the same path.
  bool HasTwinBefore(int32_t m) const {
    for (int32_t other = 0; other < m; ++other) {
      if (done_[other] == done_[m] && arrived_s_[other] == arrived_s_[m] &&
          paths_[other] == paths_[m]) {
        return true;
      }
    }
    return false;
  }

  void Branch(double not_before_s) {
    if (++best_.visited >= limit_) return;
    std::vector<Option> options = Options();
    if (options.empty()) {
      Finish();
      return;
    }
    if (Bound() > best_.makespan_s - kTolerance) return;
    std::sort(options.begin(), options.end(),
              [](const Option& a, const Option& b) {
                return std::tie(a.start_s, a.end_s, a.microbatch) <
                       std::tie(b.start_s, b.end_s, b.microbatch);
              });
    const Option first_to_end = *std::min_element(
        options.begin(), options.end(),
        [](const Option& a, const Option& b) { return a.end_s < b.end_s; });
    for (const Option& option : options) {
      if (slots_bind_) {
        // Every schedule in the order of its starts.
        if (option.start_s < not_before_s) continue;
      } else if (option.node != first_to_end.node ||
                 option.start_s >=
                     first_to_end.end_s + instance_.gap_s - kTolerance) {
        // Giffler and Thompson: in an active schedule something starts on
        // this node before the first task there could be over.
        continue;
      }
      if (HasTwinBefore(option.microbatch)) continue;
      Take(option);
    }
  }

  void Take(const Option& option) {
    const int32_t m = option.microbatch;
    const int32_t task = done_[m];
    const double free_s = free_s_[option.node];
    const double arrived_s = arrived_s_[m];
    const double used_s = option.end_s - option.start_s + instance_.gap_s;
    const int32_t holds = IsForwardTask(instance_.path_length, task)    ? 1
                          : IsBackwardTask(instance_.path_length, task) ? -1
                                                                        : 0;
    free_s_[option.node] = option.end_s + instance_.gap_s;
    arrived_s_[m] = option.end_s;
    if (task + 1 < tasks_) {
      arrived_s_[m] +=
          instance_.transfer_s[option.node][TaskNode(paths_[m], task + 1)];
    }
    held_[option.node] += holds;
    left_s_[option.node] -= used_s;
    ++done_[m];
    order_[option.node].push_back({m, task});
    Branch(option.start_s);
    order_[option.node].pop_back();
    --done_[m];
    left_s_[option.node] += used_s;
    held_[option.node] -= holds;
    arrived_s_[m] = arrived_s;
    free_s_[option.node] = free_s;
  }

  void Finish() {
    double makespan_s = 0;
    for (size_t m = 0; m < paths_.size(); ++m) {
      if (done_[m] < tasks_) return;  // a standstill: all slots are taken
      makespan_s = std::max(makespan_s, arrived_s_[m]);
    }
    if (makespan_s > best_.makespan_s - kTolerance) return;
    best_.makespan_s = makespan_s;
    best_.schedule = {paths_, order_};
  }

  const SkipInstance& instance_;
  int64_t limit_;
  std::vector<int32_t> stage_of_;
  int32_t tasks_;
  bool slots_bind_ = false;
  std::vector<std::vector<CandidatePath>> candidates_;  // [data node]
  int32_t visits_per_stage_;
  std::vector<int32_t> stage_visits_;
  std::vector<int32_t> node_visits_;
  std::vector<double> node_load_s_;  // [node]: of the paths, with rests
  std::vector<NodePath> paths_;
  // Of the partial schedule.
  std::vector<int32_t> done_;      // [microbatch]: tasks
  std::vector<double> arrived_s_;  // [microbatch]: of the next task's message
  std::vector<double> free_s_;     // [node]
  std::vector<int32_t> held_;      // [node]
  std::vector<double> left_s_;     // [node]: of tasks to come, with rests
  std::vector<std::vector<double>> tail_s_;  // [microbatch][task], solo
  std::vector<std::vector<SkipTask>> order_;
  ExactResult best_;
};

}  // namespace

absl::StatusOr<ExactResult> SolveSkipExactly(const SkipInstance& instance,
                                             int64_t limit,
                                             const SkipSchedule* incumbent) {
  RETURN_IF_ERROR(CheckInstance(instance));
  Solver solver(instance, limit);
  if (incumbent != nullptr) {
    ASSIGN_OR_RETURN(const SkipTimes times,
                     TimeSkipSchedule(instance, *incumbent));
    solver.Begin(*incumbent, times.makespan_s);
  }
  return solver.Run();
}

absl::Status ValidateSkipTimes(const SkipInstance& instance,
                               const SkipSchedule& schedule,
                               const SkipTimes& times) {
  const int32_t tasks = instance.tasks_per_microbatch();
  auto start_of = [&](const SkipTask& at) {
    return times.start_s[at.microbatch * tasks + at.task];
  };
  auto end_of = [&](const SkipTask& at) {
    return start_of(at) +
           TaskSeconds(instance, schedule.paths[at.microbatch], at.task);
  };
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    double free_s = 0;
    for (const SkipTask& at : schedule.order[node]) {
      if (start_of(at) < free_s - kTolerance) {
        return InvalidArgument(
            "microbatch {} node {}: found task {} starting at {} s, expected "
            "not before {} s, when the node is free",
            at.microbatch, node, at.task, start_of(at), free_s);
      }
      free_s = end_of(at) + instance.gap_s;
      if (at.task == 0) continue;
      const SkipTask before = {at.microbatch, at.task - 1};
      const int32_t from = TaskNode(schedule.paths[at.microbatch], before.task);
      const double arrival = end_of(before) + instance.transfer_s[from][node];
      if (start_of(at) < arrival - kTolerance) {
        return InvalidArgument(
            "microbatch {} node {}: found task {} starting at {} s, expected "
            "not before {} s, when its message arrives",
            at.microbatch, node, at.task, start_of(at), arrival);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace trireme
