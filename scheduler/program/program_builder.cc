#include "scheduler/program/program_builder.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;

// The stop before (-1) or after (1) this stage's on a step's way, which is up
// for forwards and down for backwards; a stage of -1: there is none.
struct Stop {
  int32_t stage = kNone;
  int32_t hop = kNone;  // between the two
};
Stop OnTheWay(const Program& program, int32_t stage, const ComputeStep& step,
              int32_t direction) {
  if (step.kind == InstructionKind::kBackwardWeight) return {};
  const bool up = (step.kind == InstructionKind::kForward) == (direction > 0);
  const int32_t stop = program.StopOf(step.microbatch, stage);
  return {.stage = program.StageAt(step.microbatch, up ? stop + 1 : stop - 1),
          .hop = up ? stop : stop - 1};
}

// Whose result a step reads, and who reads its result.
Stop SourceOf(const Program& program, int32_t stage, const ComputeStep& step) {
  return OnTheWay(program, stage, step, -1);
}
Stop TargetOf(const Program& program, int32_t stage, const ComputeStep& step) {
  return OnTheWay(program, stage, step, 1);
}

// When every step runs if messages take no time and no send ever blocks:
// forwards and half backwards take one unit, whole backwards two.
class Timetable {
 public:
  Timetable(const Program& program, const ComputeOrder& order)
      : program_(program),
        order_(order),
        results_(
            static_cast<size_t>(program.num_stages()) * program.microbatches,
            {kUnknown, kUnknown}),
        ends_(order.size()) {
    for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
      stage_of_.push_back(StagesOnRank(program, rank));
      ends_[rank].reserve(order[rank].size());
    }
    // An order that cannot run leaves steps unknown; the validator reports it.
    bool progress = true;
    while (progress) {
      progress = false;
      for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
        while (ends_[rank].size() < order[rank].size() && Run(rank)) {
          progress = true;
        }
      }
    }
  }

  // When the result that the step reads is made, or -1.
  int64_t SourceEnd(int32_t rank, const ComputeStep& step) const {
    const int32_t source =
        SourceOf(program_, stage_of_[rank][step.chunk], step).stage;
    return source == kNone ? kUnknown
                           : Result(source, step.microbatch, step.kind);
  }

  // The step that the rank is in at `time`: computing, waiting for what it
  // reads, or sending what it made.
  int32_t StepAt(int32_t rank, int64_t time) const {
    const std::vector<int64_t>& ends = ends_[rank];
    const auto step = static_cast<int32_t>(
        std::lower_bound(ends.begin(), ends.end(), time) - ends.begin());
    const bool over = step < static_cast<int32_t>(ends.size()) &&
                      ends[step] == time && !Sends(rank, order_[rank][step]);
    return over ? step + 1 : step;
  }

 private:
  static constexpr int64_t kUnknown = -1;

  static size_t Direction(InstructionKind kind) {
    return kind == InstructionKind::kForward ? 0 : 1;
  }
  int64_t Result(int32_t stage, int32_t microbatch,
                 InstructionKind kind) const {
    return results_[static_cast<size_t>(stage) * program_.microbatches +
                    microbatch][Direction(kind)];
  }

  bool Sends(int32_t rank, const ComputeStep& step) const {
    const int32_t target =
        TargetOf(program_, stage_of_[rank][step.chunk], step).stage;
    return target != kNone && program_.stages[target].rank != rank;
  }

  // The next step of the rank, if what it reads is made.
  bool Run(int32_t rank) {
    std::vector<int64_t>& ends = ends_[rank];
    const ComputeStep& step = order_[rank][ends.size()];
    const int32_t stage = stage_of_[rank][step.chunk];
    int64_t start = ends.empty() ? 0 : ends.back();
    if (SourceOf(program_, stage, step).stage != kNone) {
      const int64_t made = SourceEnd(rank, step);
      if (made == kUnknown) return false;
      start = std::max(start, made);
    }
    const int64_t end =
        start + (step.kind == InstructionKind::kBackward ? 2 : 1);
    ends.push_back(end);
    if (step.kind != InstructionKind::kBackwardWeight) {
      results_[static_cast<size_t>(stage) * program_.microbatches +
               step.microbatch][Direction(step.kind)] = end;
    }
    return true;
  }

  const Program& program_;
  const ComputeOrder& order_;
  std::vector<std::vector<int32_t>> stage_of_;  // [rank][chunk]
  // End of each stage's forward and backward of each microbatch.
  std::vector<std::array<int64_t, 2>> results_;
  std::vector<std::vector<int64_t>> ends_;  // [rank][step]
};

// Writes the list of one rank.
class RankBuilder {
 public:
  RankBuilder(Program& program, int32_t rank)
      : program_(program),
        list_(program.ranks[rank]),
        rank_(rank),
        stage_of_(StagesOnRank(program, rank)) {
    const size_t slots = stage_of_.size() * program.microbatches;
    forward_.assign(slots, kNone);
    backward_.assign(slots, kNone);
    last_backward_.assign(stage_of_.size(), kNone);
  }

  void Build(const std::vector<ComputeStep>& steps, const Timetable& timetable,
             bool gather_parameters) {
    const auto count = static_cast<int32_t>(steps.size());
    // posts[k]: the steps whose receives are posted before step k.
    std::vector<std::vector<int32_t>> posts(count);
    for (int32_t k = 0; k < count; ++k) {
      if (!NeedsMessage(steps[k])) continue;
      int32_t post = std::max(0, k - 1);
      const int64_t sent = timetable.SourceEnd(rank_, steps[k]);
      if (sent >= 0) post = std::min(post, timetable.StepAt(rank_, sent));
      posts[post].push_back(k);
    }
    std::vector<int32_t> received(count, kNone);
    for (int32_t k = 0; k < count; ++k) {
      for (const int32_t reader : posts[k]) {
        received[reader] = PostReceive(steps[reader]);
      }
      Compute(steps[k], received[k]);
    }
    EndStep(gather_parameters);
  }

 private:
  int32_t Append(Instruction instruction) {
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  size_t Slot(int32_t chunk, int32_t microbatch) const {
    return static_cast<size_t>(chunk) * program_.microbatches + microbatch;
  }

  bool NeedsMessage(const ComputeStep& step) const {
    const int32_t source =
        SourceOf(program_, stage_of_[step.chunk], step).stage;
    return source != kNone && program_.stages[source].rank != rank_;
  }

  int32_t PostReceive(const ComputeStep& step) {
    const auto [source, hop] = SourceOf(program_, stage_of_[step.chunk], step);
    const bool forward = step.kind == InstructionKind::kForward;
    return Append(MakeMessage(
        InstructionKind::kRecv,
        forward ? Payload::kActivation : Payload::kGradient, step.microbatch,
        hop, program_.stages[source].rank, step.chunk));
  }

  void Compute(const ComputeStep& step, int32_t received) {
    const size_t slot = Slot(step.chunk, step.microbatch);
    const bool forward = step.kind == InstructionKind::kForward;
    Instruction instruction =
        MakeCompute(step.kind, step.microbatch, step.chunk);
    auto depend = [&instruction](int32_t index) {
      if (index != kNone) instruction.depends_on.push_back(index);
    };
    if (step.kind == InstructionKind::kBackwardWeight) {
      depend(backward_[slot]);
    } else if (!forward) {
      depend(forward_[slot]);
    }
    const int32_t source =
        SourceOf(program_, stage_of_[step.chunk], step).stage;
    if (source != kNone && program_.stages[source].rank == rank_) {
      const size_t source_slot =
          Slot(program_.stages[source].chunk, step.microbatch);
      depend(forward ? forward_[source_slot] : backward_[source_slot]);
    }
    depend(received);
    const int32_t index = Append(std::move(instruction));

    if (!forward) last_backward_[step.chunk] = index;
    if (step.kind == InstructionKind::kBackwardWeight) return;
    (forward ? forward_ : backward_)[slot] = index;
    SendResult(step, index);
  }

  // To the next stage after a forward, to the previous after a backward.
  void SendResult(const ComputeStep& step, int32_t computed) {
    const auto [target, hop] = TargetOf(program_, stage_of_[step.chunk], step);
    if (target == kNone) return;
    const int32_t peer = program_.stages[target].rank;
    if (peer == rank_) return;
    const bool forward = step.kind == InstructionKind::kForward;
    Instruction send =
        MakeMessage(InstructionKind::kSend,
                    forward ? Payload::kActivation : Payload::kGradient,
                    step.microbatch, hop, peer, step.chunk);
    send.depends_on.push_back(computed);
    Append(std::move(send));
  }

  void EndStep(bool gather_parameters) {
    // In the order in which backward completes their gradients: the last
    // chunk's first.
    std::vector<std::pair<int32_t, int32_t>> buckets;
    for (auto chunk = static_cast<int32_t>(stage_of_.size()) - 1; chunk >= 0;
         --chunk) {
      for (int32_t b = 0; b < program_.buckets[stage_of_[chunk]]; ++b) {
        buckets.emplace_back(chunk, b);
      }
    }
    Instruction clip = MakeClipGradients();
    for (const auto& [chunk, bucket] : buckets) {
      Instruction reduce =
          MakeBucket(InstructionKind::kReduceGradients, chunk, bucket);
      if (last_backward_[chunk] != kNone) {
        reduce.depends_on.push_back(last_backward_[chunk]);
      }
      clip.depends_on.push_back(Append(std::move(reduce)));
    }
    const int32_t clipped = Append(std::move(clip));
    // The other way round: the next forward needs the first layers first.
    std::reverse(buckets.begin(), buckets.end());
    for (const auto& [chunk, bucket] : buckets) {
      Instruction update = MakeBucket(InstructionKind::kUpdate, chunk, bucket);
      update.depends_on.push_back(clipped);
      const int32_t updated = Append(std::move(update));
      if (!gather_parameters) continue;
      Instruction gather =
          MakeBucket(InstructionKind::kGatherParameters, chunk, bucket);
      gather.depends_on.push_back(updated);
      Append(std::move(gather));
    }
  }

  const Program& program_;
  std::vector<Instruction>& list_;
  int32_t rank_;
  std::vector<int32_t> stage_of_;  // [chunk]
  // Index in list_ by Slot(chunk, microbatch), or -1.
  std::vector<int32_t> forward_;
  std::vector<int32_t> backward_;
  std::vector<int32_t> last_backward_;  // [chunk]
};

}  // namespace

Program BuildProgram(const ComputeOrder& order,
                     std::vector<StageLocation> stages, int32_t microbatches,
                     std::vector<int32_t> buckets, bool gather_parameters,
                     std::vector<std::vector<int32_t>> routes) {
  CHECK_EQ(stages.size(), buckets.size());
  Program program;
  program.ranks.resize(order.size());
  program.stages = std::move(stages);
  program.microbatches = microbatches;
  program.buckets = std::move(buckets);
  program.routes = std::move(routes);
  const Timetable timetable(program, order);
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RankBuilder(program, rank).Build(order[rank], timetable, gather_parameters);
  }
  return program;
}

std::vector<StageLocation> OneStagePerRank(int32_t num_stages) {
  std::vector<StageLocation> stages(num_stages);
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    stages[stage] = {.rank = stage, .chunk = 0};
  }
  return stages;
}

}  // namespace trireme
