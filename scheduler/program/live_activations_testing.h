// For tests: how many microbatches a Program's ranks hold.

#ifndef TRIREME_SCHEDULER_PROGRAM_LIVE_ACTIVATIONS_TESTING_H_
#define TRIREME_SCHEDULER_PROGRAM_LIVE_ACTIVATIONS_TESTING_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "scheduler/program/instruction_kinds.h"
#include "scheduler/program/program.h"

namespace trireme {

// [rank]: the most microbatches, summed over its chunks, with live activations
// as its list runs; of chunks in units, those of the first unit.
inline std::vector<int32_t> PeakLiveActivations(const Program& program) {
  std::vector<int32_t> most;
  for (const std::vector<Instruction>& list : program.ranks) {
    int32_t now = 0, largest = 0;
    for (const Instruction& instruction : list) {
      if (instruction.unit > 0) continue;
      const KindTraits& traits = TraitsOf(instruction.kind);
      now += (traits.takes == Held::kActivations ? 1 : 0) -
             (traits.frees == Held::kActivations ? 1 : 0);
      largest = std::max(largest, now);
    }
    most.push_back(largest);
  }
  return most;
}

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_LIVE_ACTIVATIONS_TESTING_H_
