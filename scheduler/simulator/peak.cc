#include "scheduler/simulator/peak.h"

#include <algorithm>
#include <tuple>
#include <vector>

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

MemoryBytes SimulatedPeak(const Program& program, int32_t rank,
                          std::span<const Interval> held,
                          const MemoryModel& memory) {
  struct Event {
    double time_s;
    int32_t index;  // of the instruction; breaks ties as the list runs
    bool end;
    MemoryChange change;
  };
  const std::vector<Instruction>& list = program.ranks[rank];
  const RankMemory& of_rank = memory.ranks[rank];
  std::vector<Event> events;
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    MemoryChange start = ChangeAtStart(list[i], of_rank);
    MemoryChange end = ChangeAtEnd(list, i, of_rank);
    if (list[i].kind == InstructionKind::kSend) {
      start.communication = SendBytes(program, list[i], memory);
      end.communication = -start.communication;
    }
    for (const auto& [time, at_end, change] :
         {std::tuple(held[i].start_s, false, start),
          std::tuple(held[i].end_s, true, end)}) {
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
