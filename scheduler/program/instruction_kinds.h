// What a kind of instruction is, a row each: its name, which fields it has,
// what it runs on, costs and holds. Whoever builds, checks, times or counts the
// memory of a Program asks the row; only the executor knows how a kind is
// carried out (docs/adding.md).

#ifndef TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_KINDS_H_
#define TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_KINDS_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "scheduler/program/instruction_costs.h"
#include "scheduler/program/program.h"

namespace trireme {

// What an instruction names beside its chunk; ClipGradients has not even that.
enum class Operand : uint8_t {
  kNothing,
  kMicrobatch,
  // A microbatch, hop, peer and payload.
  kMessage,
  kBucket,
};

// Whether it names a unit of its chunk.
enum class UnitOperand : uint8_t { kNever, kWithOffload, kAlways };

// What a rank may hold for an instruction; sizes are those of ChunkMemory and
// UnitMemory.
enum class Held : uint8_t {
  kNothing,
  kActivations,
  kDeferredWeights,
  kUnitParameters,
  kUnitInput,
  // Until the instruction that reads it has ended.
  kMessage,
};

struct KindTraits {
  InstructionKind kind;
  std::string_view name;
  // By default.
  Resource resource = Resource::kCompute;
  bool has_chunk = true;
  Operand operand = Operand::kNothing;
  UnitOperand unit = UnitOperand::kNever;
  // Whether it may come after an Update of the step's own gradients.
  bool may_follow_update = false;
  // Its seconds; null: none. Those of a unit where the instruction names one.
  double ChunkCost::*chunk_s = nullptr;
  double UnitCost::*unit_s = nullptr;
  // From its start on; from its end on; until its end.
  Held takes = Held::kNothing;
  Held leaves = Held::kNothing;
  Held frees = Held::kNothing;
  // Whether it also frees the messages that it depends on.
  bool reads_messages = false;
};

inline constexpr KindTraits kKindTraits[] = {
    {.kind = InstructionKind::kForward,
     .name = "Forward",
     .operand = Operand::kMicrobatch,
     .unit = UnitOperand::kWithOffload,
     .chunk_s = &ChunkCost::forward_s,
     .unit_s = &UnitCost::forward_s,
     .takes = Held::kActivations,
     .reads_messages = true},
    {.kind = InstructionKind::kBackward,
     .name = "Backward",
     .operand = Operand::kMicrobatch,
     .unit = UnitOperand::kWithOffload,
     .chunk_s = &ChunkCost::backward_s,
     .unit_s = &UnitCost::backward_s,
     .frees = Held::kActivations,
     .reads_messages = true},
    {.kind = InstructionKind::kBackwardInput,
     .name = "BackwardInput",
     .operand = Operand::kMicrobatch,
     .chunk_s = &ChunkCost::backward_input_s,
     .leaves = Held::kDeferredWeights,
     .frees = Held::kActivations,
     .reads_messages = true},
    {.kind = InstructionKind::kBackwardWeight,
     .name = "BackwardWeight",
     .operand = Operand::kMicrobatch,
     .chunk_s = &ChunkCost::backward_weight_s,
     .frees = Held::kDeferredWeights},
    {.kind = InstructionKind::kSend,
     .name = "Send",
     .resource = Resource::kCommunication,
     .operand = Operand::kMessage},
    {.kind = InstructionKind::kRecv,
     .name = "Recv",
     .resource = Resource::kCommunication,
     .operand = Operand::kMessage,
     .takes = Held::kMessage},
    {.kind = InstructionKind::kReduceGradients,
     .name = "ReduceGradients",
     .resource = Resource::kCommunication,
     .operand = Operand::kBucket,
     .chunk_s = &ChunkCost::reduce_s},
    {.kind = InstructionKind::kGatherParameters,
     .name = "GatherParameters",
     .resource = Resource::kCommunication,
     .operand = Operand::kBucket,
     .may_follow_update = true,
     .chunk_s = &ChunkCost::gather_s},
    {.kind = InstructionKind::kClipGradients,
     .name = "ClipGradients",
     .has_chunk = false},
    {.kind = InstructionKind::kUpdate,
     .name = "Update",
     .operand = Operand::kBucket,
     .unit = UnitOperand::kWithOffload,
     .may_follow_update = true,
     .chunk_s = &ChunkCost::update_s,
     .unit_s = &UnitCost::update_s},
    {.kind = InstructionKind::kSaveGradients,
     .name = "SaveGradients",
     .resource = Resource::kCopyOut,
     .operand = Operand::kMicrobatch,
     .unit = UnitOperand::kAlways,
     .unit_s = &UnitCost::save_gradients_s},
    {.kind = InstructionKind::kFetch,
     .name = "Fetch",
     .resource = Resource::kCopyIn,
     .unit = UnitOperand::kAlways,
     .unit_s = &UnitCost::fetch_s,
     .takes = Held::kUnitParameters},
    {.kind = InstructionKind::kRelease,
     .name = "Release",
     .unit = UnitOperand::kAlways,
     .unit_s = &UnitCost::release_s,
     .frees = Held::kUnitParameters},
    {.kind = InstructionKind::kSaveActivation,
     .name = "SaveActivation",
     .resource = Resource::kCopyOut,
     .operand = Operand::kMicrobatch,
     .unit = UnitOperand::kAlways,
     .unit_s = &UnitCost::save_activation_s,
     .frees = Held::kUnitInput},
    {.kind = InstructionKind::kLoadActivation,
     .name = "LoadActivation",
     .resource = Resource::kCopyIn,
     .operand = Operand::kMicrobatch,
     .unit = UnitOperand::kAlways,
     .unit_s = &UnitCost::load_activation_s,
     .takes = Held::kUnitInput},
};

inline constexpr size_t kNumInstructionKinds = std::size(kKindTraits);

constexpr const KindTraits& TraitsOf(InstructionKind kind) {
  return kKindTraits[static_cast<size_t>(kind)];
}

static_assert(
    [] {
      for (size_t i = 0; i < kNumInstructionKinds; ++i) {
        if (static_cast<size_t>(kKindTraits[i].kind) != i) return false;
      }
      return true;
    }(),
    "rows are in the order of InstructionKind");

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_KINDS_H_
