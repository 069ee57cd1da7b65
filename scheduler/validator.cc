#include "scheduler/validator.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::Status CheckRange(const Program& program, int32_t rank, int32_t index,
                        std::string_view field, int32_t value, int32_t end) {
  if (value >= 0 && value < end) return absl::OkStatus();
  return InstructionError(program, rank, index,
                          fmt::format("{} {}", field, value),
                          fmt::format("0 to {}", end - 1));
}

absl::Status ValidateStages(const Program& program) {
  const size_t stages = program.stages.size();
  if (program.ranks.empty() || stages == 0 || program.microbatches < 1) {
    return InvalidArgument(
        "program: found {} ranks, {} stages and {} microbatches, expected at "
        "least 1 of each",
        program.ranks.size(), stages, program.microbatches);
  }
  if (program.buckets.size() != stages) {
    return InvalidArgument(
        "program.buckets: found {} entries, expected one per stage: {}",
        program.buckets.size(), stages);
  }
  std::map<std::pair<int32_t, int32_t>, size_t> taken;
  for (size_t stage = 0; stage < stages; ++stage) {
    const StageLocation& at = program.stages[stage];
    if (at.rank < 0 || at.rank >= program.num_ranks() || at.chunk < 0 ||
        at.chunk >= static_cast<int32_t>(stages)) {
      return InvalidArgument(
          "program.stages[{}]: found rank {} chunk {}, expected a rank below "
          "{} and a chunk below {}",
          stage, at.rank, at.chunk, program.num_ranks(), stages);
    }
    const auto [other, free] = taken.insert({{at.rank, at.chunk}, stage});
    if (!free) {
      return InvalidArgument(
          "program.stages[{}]: found rank {} chunk {}, which is stage {}; "
          "expected another",
          stage, at.rank, at.chunk, other->second);
    }
  }
  // The chunks of a rank must be 0, 1, ... without a gap: in the map's order
  // they follow one another.
  int32_t rank = -1;
  int32_t next = 0;
  for (const auto& [at, stage] : taken) {
    if (at.first != rank) next = 0;
    rank = at.first;
    if (at.second != next) {
      return InvalidArgument("program.stages[{}]: found chunk {}, expected {}",
                             stage, at.second, next);
    }
    ++next;
  }
  return absl::OkStatus();
}

bool IsMessage(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kSend ||
         instruction.kind == InstructionKind::kRecv;
}

// The fields that the kind has are in range.
absl::Status ValidateFields(const Program& program, int32_t rank, int32_t index,
                            const std::vector<int32_t>& stage_of,
                            const Instruction& instruction) {
  auto check = [&](std::string_view field, int32_t value, int32_t end) {
    return CheckRange(program, rank, index, field, value, end);
  };
  const int32_t chunks = static_cast<int32_t>(stage_of.size());
  if (instruction.kind == InstructionKind::kClipGradients) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(check("chunk", instruction.chunk, chunks));
  switch (instruction.kind) {
    case InstructionKind::kForward:
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
    case InstructionKind::kBackwardWeight:
    case InstructionKind::kSaveActivation:
    case InstructionKind::kLoadActivation:
      return check("microbatch", instruction.microbatch, program.microbatches);
    case InstructionKind::kSend:
    case InstructionKind::kRecv:
      RETURN_IF_ERROR(
          check("microbatch", instruction.microbatch, program.microbatches));
      RETURN_IF_ERROR(check("hop", instruction.hop, program.num_stages() - 1));
      if (instruction.payload == Payload::kNone) {
        return InstructionError(program, rank, index, "no payload",
                                "activation or gradient");
      }
      return check("peer", instruction.peer, program.num_ranks());
    case InstructionKind::kReduceGradients:
    case InstructionKind::kGatherParameters:
    case InstructionKind::kUpdate:
      return check("bucket", instruction.bucket,
                   program.buckets[stage_of[instruction.chunk]]);
    default:
      return absl::OkStatus();
  }
}

}  // namespace

std::string Describe(const Program& program, int32_t rank, int32_t index) {
  return fmt::format("rank {} instruction {} '{}'", rank, index,
                     ToText(program.ranks[rank][index]));
}

absl::Status InstructionError(const Program& program, int32_t rank,
                              int32_t index, std::string_view found,
                              std::string_view expected) {
  return InvalidArgument("{}: found {}, expected {}",
                         Describe(program, rank, index), found, expected);
}

absl::Status ValidateStructure(const Program& program) {
  RETURN_IF_ERROR(ValidateStages(program));
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const std::vector<Instruction>& list = program.ranks[rank];
    const std::vector<int32_t> stage_of = StagesOnRank(program, rank);
    for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
      RETURN_IF_ERROR(ValidateFields(program, rank, i, stage_of, list[i]));
      for (const int32_t dependency : list[i].depends_on) {
        if (dependency < 0 || dependency >= i) {
          return InstructionError(
              program, rank, i,
              fmt::format("a dependency on instruction {}", dependency),
              "dependencies on instructions before it (a cycle otherwise)");
        }
        if (list[dependency].kind == InstructionKind::kSend) {
          return InstructionError(
              program, rank, i,
              fmt::format("a dependency on the send at {}", dependency),
              "dependencies on anything but sends");
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateMessages(const Program& program) {
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const std::vector<Instruction>& list = program.ranks[rank];
    for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
      const Instruction& message = list[i];
      if (!IsMessage(message)) continue;
      // Activations go from stage hop to hop + 1, gradients back.
      const bool up = (message.payload == Payload::kActivation) ==
                      (message.kind == InstructionKind::kSend);
      const StageLocation& here = program.stages[message.hop + (up ? 0 : 1)];
      const StageLocation& there = program.stages[message.hop + (up ? 1 : 0)];
      if (here.rank != rank || here.chunk != message.chunk ||
          there.rank != message.peer || there.rank == rank) {
        return InstructionError(
            program, rank, i,
            fmt::format("hop {} between it and rank {}", message.hop,
                        message.peer),
            fmt::format("hop {} to join rank {} chunk {} and rank {}, apart",
                        message.hop, here.rank, here.chunk, there.rank));
      }
    }
  }
  // Channel (sender, receiver, payload) -> indices in the lists.
  using Channel = std::pair<std::pair<int32_t, int32_t>, Payload>;
  struct Ends {
    std::vector<int32_t> sends, receives;
  };
  std::map<Channel, Ends> channels;
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const std::vector<Instruction>& list = program.ranks[rank];
    for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
      const Instruction& message = list[i];
      if (message.kind == InstructionKind::kSend) {
        channels[{{rank, message.peer}, message.payload}].sends.push_back(i);
      } else if (message.kind == InstructionKind::kRecv) {
        channels[{{message.peer, rank}, message.payload}].receives.push_back(i);
      }
    }
  }
  for (const auto& [channel, ends] : channels) {
    const auto [from, to] = channel.first;
    const size_t common = std::min(ends.sends.size(), ends.receives.size());
    for (size_t k = 0; k < common; ++k) {
      const Instruction& send = program.ranks[from][ends.sends[k]];
      const Instruction& recv = program.ranks[to][ends.receives[k]];
      if (send.hop == recv.hop && send.microbatch == recv.microbatch) continue;
      return InstructionError(
          program, to, ends.receives[k],
          fmt::format("mb={} hop={} as message {} of the channel",
                      recv.microbatch, recv.hop, k),
          fmt::format("mb={} hop={}, as {} has it", send.microbatch, send.hop,
                      Describe(program, from, ends.sends[k])));
    }
    if (ends.sends.size() > common) {
      return InstructionError(program, from, ends.sends[common],
                              fmt::format("{} sends but {} receives on rank {}",
                                          ends.sends.size(), common, to),
                              "a receive for each send");
    }
    if (ends.receives.size() > common) {
      return InstructionError(program, to, ends.receives[common],
                              fmt::format("{} receives but {} sends on rank {}",
                                          ends.receives.size(), common, from),
                              "a send for each receive");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateProgram(const Program& program) {
  RETURN_IF_ERROR(ValidateStructure(program));
  RETURN_IF_ERROR(ValidateMessages(program));
  RETURN_IF_ERROR(ValidateWork(program));
  RETURN_IF_ERROR(ValidateEndOfStep(program));
  return ValidateProgress(program);
}

absl::Status CheckMemoryModel(const Program& program,
                              const MemoryModel& memory) {
  if (memory.ranks.size() != program.ranks.size()) {
    return InvalidArgument("memory model: found {} ranks, expected {}",
                           memory.ranks.size(), program.ranks.size());
  }
  std::vector<size_t> chunks_on(program.ranks.size(), 0);
  for (const StageLocation& at : program.stages) ++chunks_on[at.rank];
  for (size_t rank = 0; rank < program.ranks.size(); ++rank) {
    if (memory.ranks[rank].chunks.size() == chunks_on[rank]) continue;
    return InvalidArgument(
        "memory model of rank {}: found {} chunks, expected {}", rank,
        memory.ranks[rank].chunks.size(), chunks_on[rank]);
  }
  return absl::OkStatus();
}

absl::Status ValidateMemory(const Program& program, const MemoryModel& memory) {
  RETURN_IF_ERROR(CheckMemoryModel(program, memory));
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const RankMemory& model = memory.ranks[rank];
    const RankPeak peak = PeakInListOrder(program.ranks[rank], model);
    const int64_t total = peak.at_peak.total();
    if (model.limit_bytes == 0 || total <= model.limit_bytes) continue;
    const std::string where = program.ranks[rank].empty()
                                  ? fmt::format("rank {}", rank)
                                  : Describe(program, rank, peak.instruction);
    return ResourceExhausted(
        "{}: found a peak of {}, expected at most {}: {} too many", where,
        ToText(peak.at_peak), model.limit_bytes, total - model.limit_bytes);
  }
  return absl::OkStatus();
}

}  // namespace trireme
