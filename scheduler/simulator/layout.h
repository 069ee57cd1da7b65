// A Program as the simulator reads it: twelve bytes an instruction, with all
// that can be known before any time is, so that evaluating a list touches
// little memory and looks nothing up. Shared by replicas. Pure; any thread.

#ifndef TRIREME_SCHEDULER_SIMULATOR_LAYOUT_H_
#define TRIREME_SCHEDULER_SIMULATOR_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program/instruction_kinds.h"
#include "scheduler/program/program.h"

namespace trireme {

struct SimulatedInstruction {
  enum class Kind : uint8_t { kRun, kSend, kRecv, kClip };

  // Of `dependency`.
  static constexpr int32_t kNone = -1;
  static constexpr int32_t kSeveral = -2;

  // Of a Send or Recv its message; of kRun its cost (CostIndex).
  int32_t operand = 0;
  // The instruction of the list that it waits for, beside the compute
  // instructions before it, for which every instruction waits anyway but
  // ReduceGradients and what RunsBesideCompute. kSeveral: those that the
  // Program's instruction lists.
  int32_t dependency = kNone;
  Kind kind = Kind::kRun;
  Resource resource = Resource::kCompute;
};

// What the host and the copy streams are given while the device computes: they
// start it as soon as what it depends on has ended.
constexpr bool RunsBesideCompute(Resource resource) {
  return resource == Resource::kHost || resource == Resource::kCopyIn ||
         resource == Resource::kCopyOut;
}

struct SimulatedProgram {
  // One direction between two ranks. Its messages travel one after another, in
  // the order of their sends.
  struct Link {
    int32_t from = 0;
    int32_t to = 0;
    // Message k of the link is messages[k] or, where that is empty, as most
    // links send by number, first + k.
    int32_t first = 0;
    std::vector<int32_t> messages;

    int32_t count = 0;

    void Append(int32_t number);
    int32_t MessageAt(int32_t k) const {
      return messages.empty() ? first + k : messages[k];
    }
  };
  const Program* program = nullptr;
  // lists[rank][index].
  std::vector<std::vector<SimulatedInstruction>> lists;
  // Message `microbatch` of lane l has number l * microbatches + microbatch. A
  // lane is a hop and a direction: lane h is hop h upwards, lane hops + h
  // downwards.
  int32_t num_messages = 0;
  std::vector<int32_t> link_of_lane;
  std::vector<Link> links;
  // Chunk c of a rank is number first_chunk[rank] + c of all ranks' chunks;
  // last, how many these are. buckets[number].
  std::vector<int32_t> first_chunk;
  std::vector<int32_t> buckets;
  // With offload: unit u of the chunk of a number is first_unit[number] + u of
  // all ranks' units; last, how many these are.
  std::vector<int32_t> first_unit;

  int32_t Hops() const { return program->num_stages() - 1; }
  int32_t LaneOf(int32_t message) const {
    return message / program->microbatches;
  }
  // Where the cost of a chunk's instructions of one kind lies, and behind those
  // of all chunks that of a unit's.
  int32_t CostIndex(int32_t rank, const Instruction& instruction) const {
    const int32_t chunk = first_chunk[rank] + instruction.chunk;
    const int32_t place =
        instruction.unit < 0
            ? chunk
            : first_chunk.back() + first_unit[chunk] + instruction.unit;
    return place * static_cast<int32_t>(kNumInstructionKinds) +
           static_cast<int32_t>(instruction.kind);
  }
};

// Of a Program that passes ValidateLists, and outlives the result.
// InvalidArgument where it sends a message twice.
absl::StatusOr<SimulatedProgram> LayOut(const Program& program);
// The same of one that has not been checked, which this does on the way.
absl::StatusOr<SimulatedProgram> ValidateAndLayOut(const Program& program);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_LAYOUT_H_
