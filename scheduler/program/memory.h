// The memory of a Program on each rank: what is always there, and what its
// instructions hold for a while. All figures in bytes.

#ifndef TRIREME_SCHEDULER_PROGRAM_MEMORY_H_
#define TRIREME_SCHEDULER_PROGRAM_MEMORY_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/program/program.h"

namespace trireme {

// By the categories of a device's arena.
struct MemoryBytes {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;
  int64_t communication = 0;
  int64_t workspace = 0;

  int64_t total() const;
};

struct MemoryBytesOf {
  std::string_view name;
  int64_t MemoryBytes::*bytes = nullptr;
};
inline constexpr std::array<MemoryBytesOf, 6> kMemoryCategories = {
    {{"parameters", &MemoryBytes::parameters},
     {"gradients", &MemoryBytes::gradients},
     {"optimizer", &MemoryBytes::optimizer},
     {"activations", &MemoryBytes::activations},
     {"communication", &MemoryBytes::communication},
     {"workspace", &MemoryBytes::workspace}}};

inline int64_t MemoryBytes::total() const {
  int64_t sum = 0;
  for (const MemoryBytesOf& category : kMemoryCategories) {
    sum += this->*category.bytes;
  }
  return sum;
}

// "1234 bytes (parameters 1000, activations 234)", largest first.
std::string ToText(const MemoryBytes& bytes);

// Of one unit of a chunk (Program::offload).
struct UnitMemory {
  // On the device from the start of its Fetch to the end of its Release.
  int64_t parameter_bytes = 0;
  // As ChunkMemory's: of this unit's Forward and Backward.
  int64_t activation_bytes = 0;
  // Among them what is on the host alone from the end of a SaveActivation to
  // the start of its LoadActivation.
  int64_t input_bytes = 0;
};

struct ChunkMemory {
  // Kept for each microbatch from the start of its Forward to the end of its
  // Backward or BackwardInput. With units: the sum of theirs.
  int64_t activation_bytes = 0;
  // Kept on from the end of BackwardInput to the end of BackwardWeight.
  int64_t deferred_weight_bytes = 0;
  // One received message: from the posting of the Recv to the end of the
  // compute instruction that reads it.
  int64_t activation_message_bytes = 0;
  int64_t gradient_message_bytes = 0;
  // Of every unit where the Program has an offload; else empty.
  std::vector<UnitMemory> units;
};

struct RankMemory {
  // Held through the whole step; of parameters what is never on the host alone.
  MemoryBytes always;
  std::vector<ChunkMemory> chunks;
  // The device's limit; 0 means none.
  int64_t limit_bytes = 0;
};

// memory.ranks[pipeline rank].
struct MemoryModel {
  std::vector<RankMemory> ranks;
};

// What instruction `index` of the rank holds more (+) or less (-) when it
// starts (a Recv: is posted) and when it has ended.
struct MemoryChange {
  int64_t parameters = 0;
  int64_t activations = 0;
  int64_t communication = 0;
};
// `bytes` after it.
void Apply(const MemoryChange& change, MemoryBytes& bytes);
MemoryChange ChangeAtStart(const Instruction& instruction,
                           const RankMemory& memory);
MemoryChange ChangeAtEnd(const std::vector<Instruction>& list, int32_t index,
                         const RankMemory& memory);

// What the host keeps of units' inputs: as many buffers as there are inputs at
// once between SaveActivation and LoadActivation, the list in order, each of
// the largest's size.
int64_t InputBytesOnHost(const Program& program, int32_t rank,
                         const RankMemory& memory);

struct RankPeak {
  MemoryBytes at_peak;
  // Where the list first reaches it.
  int32_t instruction = 0;
};

// The peak of one rank when its list runs in order and one instruction at a
// time. Send buffers are left out: how long they live depends on time (the
// simulator counts them).
RankPeak PeakInListOrder(const Program& program, int32_t rank,
                         const RankMemory& memory);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_MEMORY_H_
