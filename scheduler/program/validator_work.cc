// ValidateWork: forwards, backwards and what they read and send.

#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

// Index of each (chunk, microbatch)'s instructions in one rank's list.
struct WorkIndex {
  // Of the last unit's, where the chunk has units; -1 until it has come.
  int32_t forward = -1;
  int32_t backward = -1;  // Backward or BackwardInput
  // Units so far.
  int32_t forwards = 0;
  int32_t backwards = 0;
  int32_t weight = -1;  // BackwardWeight
  bool fused = false;   // `backward` is a Backward
  int32_t activation_send = -1;
  int32_t gradient_send = -1;
};

class RankWork : RankChecks {
 public:
  RankWork(const Program& program, int32_t rank)
      : RankChecks(program, rank),
        work_(stage_of_.size() * program.microbatches) {}

  absl::Status Validate() {
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      RETURN_IF_ERROR(Visit(i));
    }
    for (size_t slot = 0; slot < work_.size(); ++slot) {
      RETURN_IF_ERROR(CheckComplete(slot));
    }
    return absl::OkStatus();
  }

 private:
  WorkIndex& Work(int32_t chunk, int32_t microbatch) {
    return work_[static_cast<size_t>(chunk) * program_.microbatches +
                 microbatch];
  }

  absl::Status Visit(int32_t index) {
    const Instruction& instruction = list_[index];
    switch (instruction.kind) {
      case InstructionKind::kForward:
        return VisitForward(index, instruction);
      case InstructionKind::kBackward:
      case InstructionKind::kBackwardInput:
        return VisitBackward(index, instruction);
      case InstructionKind::kBackwardWeight:
        return VisitWeight(index, instruction);
      case InstructionKind::kSend:
        return VisitSend(index, instruction);
      default:
        return absl::OkStatus();
    }
  }

  absl::Status VisitForward(int32_t index, const Instruction& instruction) {
    WorkIndex& work = Work(instruction.chunk, instruction.microbatch);
    if (work.forward >= 0) {
      return Error(index,
                   fmt::format("a second forward (the first is instruction {})",
                               work.forward),
                   "one forward of each microbatch on each chunk");
    }
    RETURN_IF_ERROR(CheckUnit(index, instruction, work.forwards));
    const bool first = work.forwards++ == 0;
    const int32_t stage = stage_of_[instruction.chunk];
    if (work.forwards >= program_.UnitsOf(stage)) work.forward = index;
    const int32_t stop = program_.StopOf(instruction.microbatch, stage);
    if (stop < 0) {
      return Error(index, "it off the microbatch's route",
                   "only the route's stages");
    }
    if (!first || stop == 0) return absl::OkStatus();
    return CheckInput(index, instruction, Payload::kActivation, stop - 1,
                      stop - 1);
  }

  absl::Status VisitBackward(int32_t index, const Instruction& instruction) {
    WorkIndex& work = Work(instruction.chunk, instruction.microbatch);
    if (work.forward < 0) {
      return Error(index, "no forward before it",
                   "the forward of the same microbatch and chunk");
    }
    if (work.backward >= 0) {
      return Error(
          index,
          fmt::format("a second backward (the first is instruction {})",
                      work.backward),
          "each microbatch's activations to be freed once on each chunk");
    }
    const int32_t stage = stage_of_[instruction.chunk];
    const int32_t units = program_.UnitsOf(stage);
    RETURN_IF_ERROR(CheckUnit(index, instruction, units - 1 - work.backwards));
    const bool first = work.backwards++ == 0;
    if (work.backwards >= units) work.backward = index;
    work.fused = instruction.kind == InstructionKind::kBackward;
    const int32_t stop = program_.StopOf(instruction.microbatch, stage);
    if (!first || stop + 1 == program_.StopsOf(instruction.microbatch)) {
      return absl::OkStatus();
    }
    return CheckInput(index, instruction, Payload::kGradient, stop + 1, stop);
  }

  // Units come one after the other.
  absl::Status CheckUnit(int32_t index, const Instruction& instruction,
                         int32_t expected) const {
    if (instruction.unit < 0 || instruction.unit == expected) {
      return absl::OkStatus();
    }
    return Error(index, fmt::format("unit {}", instruction.unit),
                 fmt::format("unit {} next", expected));
  }

  absl::Status VisitWeight(int32_t index, const Instruction& instruction) {
    WorkIndex& work = Work(instruction.chunk, instruction.microbatch);
    if (work.backward < 0 || work.fused || work.weight >= 0) {
      return Error(index,
                   work.weight >= 0 ? "a second BackwardWeight"
                   : work.fused     ? "it after a whole Backward"
                                    : "no BackwardInput before it",
                   "one BackwardWeight after each BackwardInput");
    }
    work.weight = index;
    return absl::OkStatus();
  }

  // The instruction depends on what brings its input: a message over `hop`, or
  // the stage of the neighbouring stop `source` on this rank.
  absl::Status CheckInput(int32_t index, const Instruction& instruction,
                          Payload payload, int32_t source, int32_t hop) {
    const StageLocation& at =
        program_.stages[program_.StageAt(instruction.microbatch, source)];
    const bool local = at.rank == rank_;
    for (const int32_t dependency : instruction.depends_on) {
      const Instruction& other = list_[dependency];
      if (other.microbatch != instruction.microbatch) continue;
      if (local) {
        const WorkIndex& work = Work(at.chunk, instruction.microbatch);
        if (dependency ==
            (payload == Payload::kActivation ? work.forward : work.backward)) {
          return absl::OkStatus();
        }
      } else if (other.kind == InstructionKind::kRecv &&
                 other.payload == payload && other.hop == hop) {
        return absl::OkStatus();
      }
    }
    return Error(index, "no dependency that brings its input",
                 local ? fmt::format("one on chunk {}'s pass of mb={}",
                                     at.chunk, instruction.microbatch)
                       : fmt::format("one on 'Recv {} mb={} hop={} from={}'",
                                     PayloadName(payload),
                                     instruction.microbatch, hop, at.rank));
  }

  // A message carries what its stage computed for its microbatch.
  absl::Status VisitSend(int32_t index, const Instruction& instruction) {
    WorkIndex& work = Work(instruction.chunk, instruction.microbatch);
    const bool forward = instruction.payload == Payload::kActivation;
    int32_t& send = forward ? work.activation_send : work.gradient_send;
    if (send >= 0) {
      return Error(
          index,
          fmt::format("a second send (the first is instruction {})", send),
          "each message to be sent once");
    }
    send = index;
    const int32_t source = forward ? work.forward : work.backward;
    for (const int32_t dependency : instruction.depends_on) {
      if (source >= 0 && dependency == source) return absl::OkStatus();
    }
    return Error(index, "no dependency on what it sends",
                 fmt::format("one on the {} of mb={} chunk={}",
                             forward ? "forward" : "backward",
                             instruction.microbatch, instruction.chunk));
  }

  absl::Status CheckComplete(size_t slot) const {
    const WorkIndex& work = work_[slot];
    const auto microbatch = static_cast<int32_t>(slot % program_.microbatches);
    const int32_t stage = stage_of_[slot / program_.microbatches];
    if (program_.StopOf(microbatch, stage) < 0) return absl::OkStatus();
    const bool whole = work.backward >= 0 && (work.fused || work.weight >= 0);
    if (work.forward >= 0 && whole) return absl::OkStatus();
    return InvalidArgument(
        "rank {} chunk {} mb={}: found {}, expected one forward and one "
        "backward",
        rank_, slot / program_.microbatches, microbatch,
        work.forward < 0    ? "no forward"
        : work.backward < 0 ? "no backward"
                            : "no BackwardWeight for its BackwardInput");
  }

  std::vector<WorkIndex> work_;
};

}  // namespace

absl::Status ValidateWork(const Program& program) {
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(RankWork(program, rank).Validate());
  }
  return absl::OkStatus();
}

}  // namespace trireme
