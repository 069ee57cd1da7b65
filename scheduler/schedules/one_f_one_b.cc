#include <algorithm>

#include "scheduler/schedules/orders.h"

namespace trireme {

ComputeOrder OneFOneBOrder(int32_t num_ranks, int32_t microbatches) {
  ComputeOrder order(num_ranks);
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    std::vector<ComputeStep>& steps = order[rank];
    steps.reserve(2 * microbatches);
    const int32_t warm_up = std::min(microbatches, num_ranks - 1 - rank);
    int32_t forward = 0;
    auto run_forward = [&] {
      steps.push_back({InstructionKind::kForward, forward++, 0});
    };
    while (forward < warm_up) run_forward();
    for (int32_t backward = 0; backward < microbatches; ++backward) {
      if (forward < microbatches) run_forward();
      steps.push_back({InstructionKind::kBackward, backward, 0});
    }
  }
  return order;
}

}  // namespace trireme
