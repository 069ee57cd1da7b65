// The memory of a replica's ranks in simulated time.

#include <algorithm>
#include <tuple>
#include <vector>

#include "scheduler/simulator/replica.h"

namespace trireme {
namespace {

int64_t SendBytes(const Program& program, const Instruction& send,
                  const MemoryModel& model) {
  const bool up = send.payload == Payload::kActivation;
  const StageLocation& to = program.stages[send.hop + (up ? 1 : 0)];
  const ChunkMemory& memory = model.ranks[to.rank].chunks[to.chunk];
  return up ? memory.activation_message_bytes : memory.gradient_message_bytes;
}

}  // namespace

MemoryBytes SimulatedReplica::PeakInTime(int32_t rank) const {
  struct Event {
    double time_s;
    int32_t index;  // of the instruction; breaks ties as the list runs
    bool end;
    MemoryChange change;
  };
  const Program& program = *program_.program;
  const std::vector<Instruction>& list = program.ranks[rank];
  const RankMemory& of_rank = memory_->ranks[rank];
  std::vector<Event> events;
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    MemoryChange start = ChangeAtStart(list[i], of_rank);
    MemoryChange end = ChangeAtEnd(list, i, of_rank);
    double from_s = TimeOf(rank, i).start_s;
    const SimulatedInstruction& instruction = program_.lists[rank][i];
    if (instruction.kind == SimulatedInstruction::Kind::kRecv) {
      from_s = messages_[instruction.operand].posted_s;
    } else if (instruction.kind == SimulatedInstruction::Kind::kSend) {
      from_s = messages_[instruction.operand].sent_s;
      start.communication = SendBytes(program, list[i], *memory_);
      end.communication = -start.communication;
    }
    for (const auto& [time, at_end, change] :
         {std::tuple(from_s, false, start),
          std::tuple(TimeOf(rank, i).end_s, true, end)}) {
      if (change.parameters != 0 || change.activations != 0 ||
          change.communication != 0) {
        events.push_back({time, i, at_end, change});
      }
    }
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::tie(a.time_s, a.index, a.end) <
           std::tie(b.time_s, b.index, b.end);
  });
  MemoryBytes now = of_rank.always;
  MemoryBytes peak = now;
  for (const Event& event : events) {
    Apply(event.change, now);
    if (now.total() > peak.total()) peak = now;
  }
  return peak;
}

}  // namespace trireme
