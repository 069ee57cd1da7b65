#include "scheduler/program/memory.h"

#include <algorithm>

#include "fmt/format.h"
#include "scheduler/program/instruction_kinds.h"

namespace trireme {
namespace {

int64_t BytesOf(Held held, const Instruction& instruction,
                const RankMemory& memory) {
  if (held == Held::kNothing) return 0;
  const ChunkMemory& chunk = memory.chunks[instruction.chunk];
  switch (held) {
    case Held::kActivations:
      return instruction.unit < 0
                 ? chunk.activation_bytes
                 : chunk.units[instruction.unit].activation_bytes;
    case Held::kDeferredWeights:
      return chunk.deferred_weight_bytes;
    case Held::kUnitParameters:
      return chunk.units[instruction.unit].parameter_bytes;
    case Held::kUnitInput:
      return chunk.units[instruction.unit].input_bytes;
    case Held::kMessage:
      return instruction.payload == Payload::kActivation
                 ? chunk.activation_message_bytes
                 : chunk.gradient_message_bytes;
    case Held::kNothing:
      break;
  }
  return 0;
}

void Add(Held held, int64_t bytes, MemoryChange& change) {
  (held == Held::kUnitParameters ? change.parameters
   : held == Held::kMessage      ? change.communication
                                 : change.activations) += bytes;
}

}  // namespace

std::string ToText(const MemoryBytes& bytes) {
  auto parts = kMemoryCategories;
  std::stable_sort(parts.begin(), parts.end(),
                   [&](const MemoryBytesOf& a, const MemoryBytesOf& b) {
                     return bytes.*a.bytes > bytes.*b.bytes;
                   });
  std::vector<std::string> texts;
  for (const auto& [name, member] : parts) {
    const int64_t value = bytes.*member;
    if (value != 0) texts.push_back(fmt::format("{} {}", name, value));
  }
  return fmt::format("{} bytes ({})", bytes.total(), fmt::join(texts, ", "));
}

void Apply(const MemoryChange& change, MemoryBytes& bytes) {
  bytes.parameters += change.parameters;
  bytes.activations += change.activations;
  bytes.communication += change.communication;
}

MemoryChange ChangeAtStart(const Instruction& instruction,
                           const RankMemory& memory) {
  const Held takes = TraitsOf(instruction.kind).takes;
  MemoryChange change;
  Add(takes, BytesOf(takes, instruction, memory), change);
  return change;
}

MemoryChange ChangeAtEnd(const std::vector<Instruction>& list, int32_t index,
                         const RankMemory& memory) {
  const Instruction& instruction = list[index];
  const KindTraits& traits = TraitsOf(instruction.kind);
  MemoryChange change;
  Add(traits.frees, -BytesOf(traits.frees, instruction, memory), change);
  Add(traits.leaves, BytesOf(traits.leaves, instruction, memory), change);
  if (!traits.reads_messages) return change;
  for (const int32_t dependency : instruction.depends_on) {
    const Held read = TraitsOf(list[dependency].kind).takes;
    if (read != Held::kMessage) continue;
    Add(read, -BytesOf(read, list[dependency], memory), change);
  }
  return change;
}

int64_t InputBytesOnHost(const Program& program, int32_t rank,
                         const RankMemory& memory) {
  int64_t now = 0, most = 0, largest = 0;
  for (const Instruction& instruction : program.ranks[rank]) {
    const bool saves = TraitsOf(instruction.kind).frees == Held::kUnitInput;
    const bool loads = TraitsOf(instruction.kind).takes == Held::kUnitInput;
    if (!saves && !loads) continue;
    const int64_t bytes = BytesOf(Held::kUnitInput, instruction, memory);
    if (bytes == 0) continue;
    largest = std::max(largest, bytes);
    now += saves ? 1 : -1;
    most = std::max(most, now);
  }
  return most * largest;
}

RankPeak PeakInListOrder(const Program& program, int32_t rank,
                         const RankMemory& memory) {
  const std::vector<Instruction>& list = program.ranks[rank];
  RankPeak peak;
  peak.at_peak = memory.always;
  MemoryBytes now = peak.at_peak;
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    Apply(ChangeAtStart(list[i], memory), now);
    if (now.total() > peak.at_peak.total()) {
      peak.at_peak = now;
      peak.instruction = i;
    }
    Apply(ChangeAtEnd(list, i, memory), now);
  }
  return peak;
}

}  // namespace trireme
