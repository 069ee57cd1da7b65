#include "scheduler/memory.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace trireme {
namespace {

int64_t MessageBytes(const Instruction& recv, const RankMemory& memory) {
  const ChunkMemory& chunk = memory.chunks[recv.chunk];
  return recv.payload == Payload::kActivation ? chunk.activation_message_bytes
                                              : chunk.gradient_message_bytes;
}

// Of a compute instruction: its unit's, or the chunk's.
int64_t ActivationBytes(const Instruction& instruction,
                        const RankMemory& memory) {
  const ChunkMemory& chunk = memory.chunks[instruction.chunk];
  return instruction.unit < 0 ? chunk.activation_bytes
                              : chunk.units[instruction.unit].activation_bytes;
}

int64_t ParameterBytes(const Unit& unit, const RankMemory& memory) {
  return memory.chunks[unit.chunk].units[unit.unit].parameter_bytes;
}

}  // namespace

std::string ToText(const MemoryBytes& bytes) {
  std::array<std::pair<int64_t, std::string_view>, 6> parts = {
      {{bytes.parameters, "parameters"},
       {bytes.gradients, "gradients"},
       {bytes.optimizer, "optimizer"},
       {bytes.activations, "activations"},
       {bytes.communication, "communication"},
       {bytes.workspace, "workspace"}}};
  std::stable_sort(
      parts.begin(), parts.end(),
      [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> texts;
  for (const auto& [value, name] : parts) {
    if (value != 0) texts.push_back(fmt::format("{} {}", name, value));
  }
  return fmt::format("{} bytes ({})", bytes.total(), fmt::join(texts, ", "));
}

MemoryBytes HeldAtStart(const Program& program, int32_t rank,
                        const RankMemory& memory) {
  MemoryBytes held = memory.always;
  if (!program.offload.has_value()) return held;
  for (const Unit& unit : program.offload->at_start[rank]) {
    held.parameters += ParameterBytes(unit, memory);
  }
  return held;
}

int32_t LiveChange(const Instruction& instruction) {
  if (instruction.unit > 0) return 0;
  switch (instruction.kind) {
    case InstructionKind::kForward:
      return 1;
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
      return -1;
    default:
      return 0;
  }
}

MemoryChange ChangeAtStart(const Instruction& instruction,
                           const RankMemory& memory) {
  MemoryChange change;
  if (instruction.kind == InstructionKind::kForward) {
    change.activations = ActivationBytes(instruction, memory);
  } else if (instruction.kind == InstructionKind::kFetch) {
    change.parameters =
        ParameterBytes({instruction.chunk, instruction.unit}, memory);
  } else if (instruction.kind == InstructionKind::kRecv) {
    change.communication = MessageBytes(instruction, memory);
  }
  return change;
}

MemoryChange ChangeAtEnd(const std::vector<Instruction>& list, int32_t index,
                         const RankMemory& memory) {
  const Instruction& instruction = list[index];
  MemoryChange change;
  switch (instruction.kind) {
    case InstructionKind::kForward:
      break;
    case InstructionKind::kBackward:
      change.activations = -ActivationBytes(instruction, memory);
      break;
    case InstructionKind::kBackwardInput:
      change.activations =
          memory.chunks[instruction.chunk].deferred_weight_bytes -
          memory.chunks[instruction.chunk].activation_bytes;
      break;
    case InstructionKind::kBackwardWeight:
      change.activations =
          -memory.chunks[instruction.chunk].deferred_weight_bytes;
      return change;
    case InstructionKind::kRelease:
      change.parameters =
          -ParameterBytes({instruction.chunk, instruction.unit}, memory);
      return change;
    default:
      return change;
  }
  // A forward or backward has read its message.
  for (const int32_t dependency : instruction.depends_on) {
    if (list[dependency].kind == InstructionKind::kRecv) {
      change.communication -= MessageBytes(list[dependency], memory);
    }
  }
  return change;
}

RankPeak PeakInListOrder(const Program& program, int32_t rank,
                         const RankMemory& memory) {
  const std::vector<Instruction>& list = program.ranks[rank];
  RankPeak peak;
  peak.at_peak = HeldAtStart(program, rank, memory);
  MemoryBytes now = peak.at_peak;
  int32_t live = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    const MemoryChange start = ChangeAtStart(list[i], memory);
    now.parameters += start.parameters;
    now.activations += start.activations;
    now.communication += start.communication;
    if (now.total() > peak.at_peak.total()) {
      peak.at_peak = now;
      peak.instruction = i;
    }
    live += LiveChange(list[i]);
    peak.live_activations = std::max(peak.live_activations, live);
    const MemoryChange end = ChangeAtEnd(list, i, memory);
    now.parameters += end.parameters;
    now.activations += end.activations;
    now.communication += end.communication;
  }
  return peak;
}

}  // namespace trireme
