// ValidateEndOfStep and ValidateProgress.

#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/instruction_kinds.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

bool IsBackward(InstructionKind kind) {
  const Held frees = TraitsOf(kind).frees;
  return frees == Held::kActivations || frees == Held::kDeferredWeights;
}

// Reductions, clipping and updates of one rank.
class EndOfStep : RankChecks {
 public:
  EndOfStep(const Program& program, int32_t rank)
      : RankChecks(program, rank), last_backward_(stage_of_.size(), -1) {
    for (const int32_t stage : stage_of_) {
      reduced_.emplace_back(program.buckets[stage], -1);
      updated_.emplace_back(program.buckets[stage], -1);
    }
  }

  absl::Status Validate() {
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      RETURN_IF_ERROR(Visit(i));
    }
    if (clip_ < 0) {
      return InvalidArgument("rank {}: found no ClipGradients, expected one",
                             rank_);
    }
    for (size_t chunk = 0; chunk < updated_.size(); ++chunk) {
      for (size_t bucket = 0; bucket < updated_[chunk].size(); ++bucket) {
        if (updated_[chunk][bucket] >= 0) continue;
        return InvalidArgument(
            "rank {} chunk {} bucket {}: found no Update, expected one", rank_,
            chunk, bucket);
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Visit(int32_t index) {
    const Instruction& instruction = list_[index];
    if (any_update_ && !TraitsOf(instruction.kind).may_follow_update) {
      return Error(index, "it after an Update",
                   "only updates and parameter gathers there");
    }
    if (IsBackward(instruction.kind)) {
      last_backward_[instruction.chunk] = index;
      for (const int32_t reduced : reduced_[instruction.chunk]) {
        if (reduced < 0) continue;
        return Error(index,
                     fmt::format("it after the reduction at {}", reduced),
                     "every backward of the chunk before its reductions");
      }
    }
    switch (instruction.kind) {
      case InstructionKind::kReduceGradients:
        return VisitReduce(index, instruction);
      case InstructionKind::kClipGradients:
        return VisitClip(index, instruction);
      case InstructionKind::kUpdate:
        return VisitUpdate(index, instruction);
      default:
        return absl::OkStatus();
    }
  }

  absl::Status VisitReduce(int32_t index, const Instruction& instruction) {
    int32_t& reduced = reduced_[instruction.chunk][instruction.bucket];
    if (reduced >= 0) {
      return Error(index,
                   fmt::format("a second reduction (the first is instruction "
                               "{})",
                               reduced),
                   "one of each bucket");
    }
    reduced = index;
    const int32_t last = last_backward_[instruction.chunk];
    return last < 0 ? absl::OkStatus()
                    : CheckDependsOn(index, last, "the chunk's last backward");
  }

  absl::Status VisitClip(int32_t index, const Instruction& instruction) {
    if (clip_ >= 0) {
      return Error(index, "a second ClipGradients", "one in a step");
    }
    clip_ = index;
    for (size_t chunk = 0; chunk < reduced_.size(); ++chunk) {
      for (size_t bucket = 0; bucket < reduced_[chunk].size(); ++bucket) {
        const int32_t reduced = reduced_[chunk][bucket];
        if (reduced >= 0 && DependsOn(instruction, reduced)) continue;
        return Error(index, "no dependency on a reduction",
                     fmt::format("one on ReduceGradients chunk={} bucket={}",
                                 chunk, bucket));
      }
    }
    return absl::OkStatus();
  }

  absl::Status VisitUpdate(int32_t index, const Instruction& instruction) {
    // Else it is of the step before.
    any_update_ = !program_.offload.has_value();
    int32_t& updated = updated_[instruction.chunk][instruction.bucket];
    if (updated >= 0) {
      return Error(
          index,
          fmt::format("a second update (the first is instruction {})", updated),
          "one of each bucket");
    }
    updated = index;
    if (program_.offload.has_value()) {
      if (clip_ < 0) return absl::OkStatus();
      return Error(index, "it after ClipGradients",
                   "it before its unit's first Fetch");
    }
    if (clip_ < 0 || !DependsOn(instruction, clip_)) {
      return Error(index, "no dependency on ClipGradients", "one");
    }
    return absl::OkStatus();
  }

  std::vector<int32_t> last_backward_;         // [chunk]
  std::vector<std::vector<int32_t>> reduced_;  // [chunk][bucket] -> index
  std::vector<std::vector<int32_t>> updated_;
  int32_t clip_ = -1;
  bool any_update_ = false;
};

// Runs all lists at once under the strongest rules: an instruction blocks its
// list until all it depends on has ended, a Send until its Recv is posted,
// ClipGradients until every rank is there. Since no instruction ever disables
// another, the order in which ranks are tried does not matter: either all lists
// end, or the same set of ranks is stuck.
class BlockingRun {
 public:
  explicit BlockingRun(const Program& program)
      : program_(program),
        next_(program.ranks.size(), 0),
        waiters_(program.ranks.size()) {
    for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
      ready_.push_back(rank);
    }
  }

  absl::Status Run() {
    while (!ready_.empty()) {
      const int32_t rank = ready_.back();
      ready_.pop_back();
      Advance(rank);
    }
    for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
      if (next_[rank] < ListSize(rank)) return Deadlock(rank);
    }
    return absl::OkStatus();
  }

 private:
  // (payload, hop, microbatch)
  using Message = std::tuple<Payload, int32_t, int32_t>;
  struct MessageState {
    bool posted = false;
    bool sent = false;
  };

  int32_t ListSize(int32_t rank) const {
    return static_cast<int32_t>(program_.ranks[rank].size());
  }

  static Message KeyOf(const Instruction& message) {
    return {message.payload, message.hop, message.microbatch};
  }

  // Whom the rank's next instruction waits for; -1 if for nobody.
  int32_t WaitsFor(int32_t rank) {
    const std::vector<Instruction>& list = program_.ranks[rank];
    const Instruction& instruction = list[next_[rank]];
    for (const int32_t dependency : instruction.depends_on) {
      const Instruction& other = list[dependency];
      if (other.kind == InstructionKind::kRecv &&
          !messages_[KeyOf(other)].sent) {
        return other.peer;
      }
    }
    if (instruction.kind == InstructionKind::kSend &&
        !messages_[KeyOf(instruction)].posted) {
      return instruction.peer;
    }
    if (instruction.kind == InstructionKind::kClipGradients) {
      for (; clipping_ < program_.num_ranks(); ++clipping_) {
        const int32_t other = clipping_;
        if (next_[other] >= ListSize(other) ||
            program_.ranks[other][next_[other]].kind !=
                InstructionKind::kClipGradients) {
          return other;
        }
      }
    }
    return -1;
  }

  void Advance(int32_t rank) {
    const std::vector<Instruction>& list = program_.ranks[rank];
    while (next_[rank] < ListSize(rank)) {
      const Instruction& instruction = list[next_[rank]];
      if (instruction.kind == InstructionKind::kClipGradients) Wake(rank);
      if (const int32_t other = WaitsFor(rank); other >= 0) {
        waiters_[other].push_back(rank);
        return;
      }
      if (instruction.kind == InstructionKind::kSend) {
        messages_[KeyOf(instruction)].sent = true;
        Wake(rank);
      } else if (instruction.kind == InstructionKind::kRecv) {
        messages_[KeyOf(instruction)].posted = true;
        Wake(rank);
      }
      ++next_[rank];
    }
  }

  // The rank has done something that others may wait for.
  void Wake(int32_t rank) {
    for (const int32_t waiter : waiters_[rank]) ready_.push_back(waiter);
    waiters_[rank].clear();
  }

  // Follows who waits for whom from a stuck rank until a rank comes again.
  absl::Status Deadlock(int32_t rank) {
    std::vector<bool> seen(program_.ranks.size(), false);
    std::vector<std::string> chain;
    while (!seen[rank]) {
      seen[rank] = true;
      if (next_[rank] >= ListSize(rank)) {
        chain.push_back(fmt::format("rank {}, whose list has ended", rank));
        break;
      }
      const int32_t other = WaitsFor(rank);
      chain.push_back(fmt::format("{} waits for rank {}",
                                  Describe(program_, rank, next_[rank]),
                                  other));
      rank = other;
    }
    return InvalidArgument(
        "deadlock with blocking sends: found {}; expected an order in which "
        "every receive is posted before the sends that it would wait behind",
        fmt::join(chain, "; "));
  }

  const Program& program_;
  std::vector<int32_t> next_;  // [rank]: index of the next instruction
  absl::flat_hash_map<Message, MessageState> messages_;
  // [rank]: ranks to try again when it moves.
  std::vector<std::vector<int32_t>> waiters_;
  std::vector<int32_t> ready_;
  // Ranks below this are known to have come to ClipGradients.
  int32_t clipping_ = 0;
};

}  // namespace

absl::Status ValidateEndOfStep(const Program& program) {
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(EndOfStep(program, rank).Validate());
  }
  return absl::OkStatus();
}

absl::Status ValidateProgress(const Program& program) {
  return BlockingRun(program).Run();
}

}  // namespace trireme
