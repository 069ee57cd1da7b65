#include <cmath>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {

std::string TrackOf(const Instruction& instruction) {
  if (instruction.kind == InstructionKind::kSend) {
    return fmt::format("to {}", instruction.peer);
  }
  return std::string(ResourceName(instruction.resource));
}

std::vector<TraceEvent> SimulationTrace(const Program& program,
                                        const Simulation& simulation) {
  auto nanoseconds = [](double seconds) {
    return static_cast<int64_t>(std::llround(seconds * 1e9));
  };
  std::vector<TraceEvent> events;
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const std::vector<Instruction>& list = program.ranks[rank];
    for (size_t i = 0; i < list.size(); ++i) {
      const Instruction& instruction = list[i];
      const Interval& interval = simulation.times[rank][i];
      const int64_t start = nanoseconds(interval.start_s);
      const int64_t end = nanoseconds(interval.end_s);
      if (instruction.kind == InstructionKind::kRecv || end == start) continue;
      TraceEvent event;
      event.name = ToText(instruction);
      event.category = std::string(ResourceName(instruction.resource));
      event.rank = rank;
      event.track = TrackOf(instruction);
      event.start_ns = start;
      event.duration_ns = end - start;
      event.args.emplace_back("instruction", std::to_string(i));
      events.push_back(std::move(event));
    }
  }
  return events;
}

}  // namespace trireme
