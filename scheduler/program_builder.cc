#include "scheduler/program_builder.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;

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

  void Build(const std::vector<ComputeStep>& steps) {
    int32_t posted = steps.empty() ? kNone : PostReceive(steps[0]);
    for (size_t k = 0; k < steps.size(); ++k) {
      const int32_t received = posted;
      posted = k + 1 < steps.size() ? PostReceive(steps[k + 1]) : kNone;
      Compute(steps[k], received);
    }
    EndStep();
  }

 private:
  int32_t Append(Instruction instruction) {
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  size_t Slot(int32_t chunk, int32_t microbatch) const {
    return static_cast<size_t>(chunk) * program_.microbatches + microbatch;
  }

  // The stage whose result the step reads, or -1: the one below for a forward,
  // the one above for a backward.
  int32_t SourceStage(const ComputeStep& step) const {
    const int32_t stage = stage_of_[step.chunk];
    switch (step.kind) {
      case InstructionKind::kForward:
        return stage - 1;  // -1 at the first stage
      case InstructionKind::kBackward:
      case InstructionKind::kBackwardInput:
        return stage + 1 < program_.num_stages() ? stage + 1 : kNone;
      default:
        return kNone;
    }
  }

  // Posts the receive that the step needs; -1 if it needs none.
  int32_t PostReceive(const ComputeStep& step) {
    const int32_t source = SourceStage(step);
    if (source == kNone || program_.stages[source].rank == rank_) return kNone;
    const bool forward = step.kind == InstructionKind::kForward;
    const int32_t hop = forward ? source : source - 1;
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
    const int32_t source = SourceStage(step);
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
    const int32_t stage = stage_of_[step.chunk];
    const bool forward = step.kind == InstructionKind::kForward;
    const int32_t target = forward ? stage + 1 : stage - 1;
    if (target < 0 || target >= program_.num_stages()) return;
    const int32_t peer = program_.stages[target].rank;
    if (peer == rank_) return;
    Instruction send = MakeMessage(
        InstructionKind::kSend,
        forward ? Payload::kActivation : Payload::kGradient, step.microbatch,
        forward ? stage : target, peer, step.chunk);
    send.depends_on.push_back(computed);
    Append(std::move(send));
  }

  void EndStep() {
    Instruction clip = MakeClipGradients();
    ForEachBucket([&](int32_t chunk, int32_t bucket) {
      Instruction reduce =
          MakeBucket(InstructionKind::kReduceGradients, chunk, bucket);
      if (last_backward_[chunk] != kNone) {
        reduce.depends_on.push_back(last_backward_[chunk]);
      }
      clip.depends_on.push_back(Append(std::move(reduce)));
    });
    const int32_t clipped = Append(std::move(clip));
    ForEachBucket([&](int32_t chunk, int32_t bucket) {
      Instruction update = MakeBucket(InstructionKind::kUpdate, chunk, bucket);
      update.depends_on.push_back(clipped);
      Append(std::move(update));
    });
  }

  // Chunks whose gradients are final first come first: the last chunk's.
  template <typename Visit>
  void ForEachBucket(Visit visit) const {
    for (int32_t chunk = static_cast<int32_t>(stage_of_.size()) - 1; chunk >= 0;
         --chunk) {
      for (int32_t b = 0; b < program_.buckets[stage_of_[chunk]]; ++b) {
        visit(chunk, b);
      }
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
                     std::vector<int32_t> buckets) {
  CHECK_EQ(stages.size(), buckets.size());
  Program program;
  program.ranks.resize(order.size());
  program.stages = std::move(stages);
  program.microbatches = microbatches;
  program.buckets = std::move(buckets);
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RankBuilder(program, rank).Build(order[rank]);
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
