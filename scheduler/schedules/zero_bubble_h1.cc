#include <algorithm>

#include "scheduler/schedules/orders.h"

namespace trireme {

ComputeOrder ZeroBubbleH1Order(int32_t num_ranks, int32_t microbatches) {
  ComputeOrder order(num_ranks);
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    std::vector<ComputeStep>& steps = order[rank];
    steps.reserve(3 * microbatches);
    int32_t forward = 0;
    int32_t weight = 0;
    const auto run_forward = [&] {
      steps.push_back({InstructionKind::kForward, forward++, 0});
    };
    const auto run_weight = [&] {
      steps.push_back({InstructionKind::kBackwardWeight, weight++, 0});
    };
    while (forward < std::min(microbatches, num_ranks - 1 - rank)) {
      run_forward();
    }
    for (int32_t backward = 0; backward < microbatches; ++backward) {
      if (forward < microbatches) run_forward();
      steps.push_back({InstructionKind::kBackwardInput, backward, 0});
      // Rank r puts off r of them, for the drain.
      if (backward >= rank) run_weight();
    }
    while (weight < microbatches) run_weight();
  }
  return order;
}

}  // namespace trireme
