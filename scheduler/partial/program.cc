#include "scheduler/partial/program.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/partial/validator.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;
constexpr int32_t kHead = 1;
// Sums of doubles in different orders differ by less.
constexpr double kTolerance = 1e-9;

Payload PayloadOfHop(int32_t path_length, int32_t hop) {
  return hop < path_length ? Payload::kActivation : Payload::kGradient;
}

// The chunk that runs a task.
int32_t ChunkOfTask(int32_t path_length, int32_t task) {
  return task == path_length ? kHead : 0;
}

class NodeBuilder {
 public:
  NodeBuilder(const SkipInstance& instance, const SkipSchedule& schedule,
              const SkipTimes& times, int32_t node, Program& program)
      : instance_(instance),
        schedule_(schedule),
        times_(times),
        node_(node),
        order_(schedule.order[node]),
        program_(program),
        list_(program.ranks[node]),
        forward_(schedule.paths.size(), kNone),
        last_backward_(ChunksOnRank(program, node), kNone) {}

  void Build() {
    const auto count = static_cast<int32_t>(order_.size());
    // posts[k]: the tasks whose receives are posted before task k.
    std::vector<std::vector<int32_t>> posts(count);
    for (int32_t k = 0; k < count; ++k) {
      if (order_[k].task == 0) continue;
      const SkipTask sender = {order_[k].microbatch, order_[k].task - 1};
      posts[std::min(std::max(0, k - 1), TaskAt(EndOf(sender)))].push_back(k);
    }
    std::vector<int32_t> received(count, kNone);
    for (int32_t k = 0; k < count; ++k) {
      for (const int32_t reader : posts[k]) {
        received[reader] = PostReceive(order_[reader]);
      }
      Compute(order_[k], received[k]);
    }
    AppendEndOfStep(program_, node_, last_backward_,
                    /*gather_parameters=*/false, list_);
  }

 private:
  double EndOf(const SkipTask& at) const {
    return times_.start_s[at.microbatch * instance_.tasks_per_microbatch() +
                          at.task] +
           TaskSeconds(instance_, schedule_.paths[at.microbatch], at.task);
  }

  // The task that the node is in, waits for or sends the result of.
  int32_t TaskAt(double time_s) const {
    const auto at = std::partition_point(
        order_.begin(), order_.end(), [&](const SkipTask& task) {
          return EndOf(task) < time_s - kTolerance;
        });
    return static_cast<int32_t>(at - order_.begin());
  }

  int32_t Append(Instruction instruction) {
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  int32_t AppendMessage(InstructionKind kind, const SkipTask& at, int32_t hop,
                        int32_t peer, int32_t computed) {
    Instruction message = MakeMessage(
        kind, PayloadOfHop(instance_.path_length, hop), at.microbatch, hop,
        peer, ChunkOfTask(instance_.path_length, at.task));
    if (computed != kNone) message.depends_on.push_back(computed);
    return Append(std::move(message));
  }

  int32_t PostReceive(const SkipTask& at) {
    const NodePath& path = schedule_.paths[at.microbatch];
    return AppendMessage(InstructionKind::kRecv, at, at.task - 1,
                         TaskNode(path, at.task - 1), kNone);
  }

  void Compute(const SkipTask& at, int32_t received) {
    const int32_t length = instance_.path_length;
    int32_t computed = kNone;
    if (at.task <= length) {
      computed = Run(InstructionKind::kForward, at, {received});
    }
    if (at.task < length) {
      forward_[at.microbatch] = computed;
    } else {
      // The head's backward follows its forward at once.
      const int32_t forward =
          at.task == length ? computed : forward_[at.microbatch];
      computed = Run(InstructionKind::kBackward, at,
                     {forward, at.task == length ? kNone : received});
      last_backward_[ChunkOfTask(length, at.task)] = computed;
    }
    if (at.task == 2 * length) return;
    AppendMessage(InstructionKind::kSend, at, at.task,
                  TaskNode(schedule_.paths[at.microbatch], at.task + 1),
                  computed);
  }

  int32_t Run(InstructionKind kind, const SkipTask& at,
              std::initializer_list<int32_t> depends_on) {
    Instruction instruction = MakeCompute(
        kind, at.microbatch, ChunkOfTask(instance_.path_length, at.task));
    for (const int32_t index : depends_on) {
      if (index != kNone) instruction.depends_on.push_back(index);
    }
    return Append(std::move(instruction));
  }

  const SkipInstance& instance_;
  const SkipSchedule& schedule_;
  const SkipTimes& times_;
  int32_t node_;
  const std::vector<SkipTask>& order_;
  const Program& program_;
  std::vector<Instruction>& list_;
  std::vector<int32_t> forward_;        // [microbatch]: of chunk 0
  std::vector<int32_t> last_backward_;  // [chunk]
};

// What a node's list does for its microbatches.
class NodeWork {
 public:
  NodeWork(const SkipInstance& instance, const std::vector<NodePath>& paths,
           const Program& program, int32_t node)
      : instance_(instance),
        paths_(paths),
        program_(program),
        node_(node),
        list_(program.ranks[node]),
        tasks_(instance.tasks_per_microbatch()),
        computed_(paths.size() * tasks_, kNone),
        sent_(paths.size() * tasks_, kNone),
        received_(paths.size() * tasks_, kNone) {}

  absl::Status Validate() {
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      const Instruction& instruction = list_[i];
      switch (instruction.kind) {
        case InstructionKind::kForward:
        case InstructionKind::kBackward:
          RETURN_IF_ERROR(VisitCompute(i, instruction));
          break;
        case InstructionKind::kSend:
        case InstructionKind::kRecv:
          RETURN_IF_ERROR(VisitMessage(i, instruction));
          break;
        default:
          break;
      }
    }
    for (size_t m = 0; m < paths_.size(); ++m) {
      for (int32_t task = 0; task < tasks_; ++task) {
        if (TaskNode(paths_[m], task) != node_) continue;
        if (computed_[m * tasks_ + task] == kNone ||
            (task + 1 < tasks_ && sent_[m * tasks_ + task] == kNone)) {
          return InvalidArgument(
              "microbatch {} node {}: found task {} not computed or its "
              "result not sent, expected both",
              m, node_, task);
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Error(int32_t index, std::string_view found,
                     std::string_view expected) const {
    return InstructionError(program_, node_, index, found, expected);
  }

  // Which of its path's tasks the microbatch has here: the forward's number,
  // or -1.
  int32_t PositionHere(int32_t microbatch) const {
    const NodePath& path = paths_[microbatch];
    const auto at = std::find(path.begin(), path.end(), node_);
    return at == path.end() ? kNone : static_cast<int32_t>(at - path.begin());
  }

  absl::Status VisitCompute(int32_t index, const Instruction& instruction) {
    const int32_t length = instance_.path_length;
    const int32_t position = PositionHere(instruction.microbatch);
    if (position == kNone || (instruction.chunk == kHead && position != 0)) {
      return Error(index, "it on a node that its path does not visit so",
                   "only the path's nodes, the head at its start");
    }
    const bool forward = instruction.kind == InstructionKind::kForward;
    const size_t base = static_cast<size_t>(instruction.microbatch) * tasks_;
    const bool head = instruction.chunk == kHead;
    const int32_t task = head      ? length
                         : forward ? position
                                   : 2 * length - position;
    if (head && forward) {
      head_forward_ = index;
    } else {
      if (computed_[base + task] != kNone) {
        return Error(index, "it a second time", "each task of a path once");
      }
      computed_[base + task] = index;
    }
    if (!forward &&
        !DependsOn(list_[index],
                   head ? head_forward_ : computed_[base + position])) {
      return Error(index, "no dependency on its forward", "one");
    }
    const bool reads = task > 0 && !(head && !forward);
    if (reads && !DependsOn(list_[index], received_[base + task])) {
      return Error(index, "no dependency on its message", "one");
    }
    return absl::OkStatus();
  }

  absl::Status VisitMessage(int32_t index, const Instruction& message) {
    const bool send = message.kind == InstructionKind::kSend;
    const NodePath& path = paths_[message.microbatch];
    // The task that sends it, the task that reads it.
    const int32_t from = message.hop;
    const int32_t here = send ? from : from + 1;
    if (from < 0 || from + 1 >= tasks_ || TaskNode(path, here) != node_ ||
        TaskNode(path, send ? from + 1 : from) != message.peer ||
        message.payload != PayloadOfHop(instance_.path_length, from)) {
      return Error(index, "it off the microbatch's path",
                   "the hop, peer and payload of the path");
    }
    int32_t& entry =
        (send ? sent_
              : received_)[static_cast<size_t>(message.microbatch) * tasks_ +
                           here];
    if (entry != kNone) {
      return Error(index, "it a second time", "each message once");
    }
    entry = index;
    const size_t slot = static_cast<size_t>(message.microbatch) * tasks_ + here;
    if (send && !DependsOn(list_[index], computed_[slot])) {
      return Error(index, "no dependency on what it sends", "one");
    }
    return absl::OkStatus();
  }

  const SkipInstance& instance_;
  const std::vector<NodePath>& paths_;
  const Program& program_;
  int32_t node_;
  const std::vector<Instruction>& list_;
  int32_t tasks_;
  // Instruction of each [microbatch * tasks + task] of this node, or -1.
  std::vector<int32_t> computed_;
  std::vector<int32_t> sent_;
  std::vector<int32_t> received_;
  int32_t head_forward_ = kNone;
};

}  // namespace

absl::StatusOr<SkipProgram> BuildSkipProgram(const SkipInstance& instance,
                                             const SkipSchedule& schedule,
                                             std::vector<int32_t> buckets) {
  RETURN_IF_ERROR(ValidateSkipSchedule(instance, schedule));
  ASSIGN_OR_RETURN(const SkipTimes times, TimeSkipSchedule(instance, schedule));
  SkipProgram result;
  Program& program = result.program;
  program.ranks.resize(instance.num_nodes());
  program.microbatches = instance.num_microbatches();
  const std::vector<int32_t> stage_of = StageOfNodes(instance);
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    program.stages.push_back({.rank = node, .chunk = 0});
    result.model_stage.push_back(stage_of[node]);
    if (stage_of[node] != 0) continue;
    program.stages.push_back({.rank = node, .chunk = kHead});
    result.model_stage.push_back(instance.num_stages());
  }
  if (int64_t{program.microbatches} * program.num_stages() >
      kMaxMicrobatchesTimesStages) {
    return InvalidArgument(
        "plan.microbatches: found {} of all replicas, expected at most {} with "
        "{} ranks",
        program.microbatches,
        kMaxMicrobatchesTimesStages / program.num_stages(),
        program.num_ranks());
  }
  CHECK_EQ(buckets.size(), program.stages.size());
  program.buckets = std::move(buckets);
  result.visits.assign(instance.num_stages() + 1, 0);
  for (const NodePath& path : schedule.paths) {
    for (const int32_t node : path) ++result.visits[stage_of[node]];
  }
  result.visits.back() = result.visits.front();
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    NodeBuilder(instance, schedule, times, node, program).Build();
  }
  RETURN_IF_ERROR(ValidateSkipProgram(instance, schedule.paths, result));
  return result;
}

absl::Status ValidateSkipProgram(const SkipInstance& instance,
                                 const std::vector<NodePath>& paths,
                                 const SkipProgram& program) {
  RETURN_IF_ERROR(ValidateSkipPaths(instance, paths));
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    RETURN_IF_ERROR(
        NodeWork(instance, paths, program.program, node).Validate());
  }
  RETURN_IF_ERROR(ValidateEndOfStep(program.program));
  return ValidateProgress(program.program);
}

}  // namespace trireme
