#include "scheduler/schedules/orders.h"

namespace trireme {

ComputeOrder GPipeOrder(int32_t num_ranks, int32_t microbatches) {
  std::vector<ComputeStep> steps;
  steps.reserve(2 * microbatches);
  for (const InstructionKind kind :
       {InstructionKind::kForward, InstructionKind::kBackward}) {
    for (int32_t i = 0; i < microbatches; ++i) {
      steps.push_back({.kind = kind, .microbatch = i, .chunk = 0});
    }
  }
  return ComputeOrder(num_ranks, steps);
}

}  // namespace trireme
