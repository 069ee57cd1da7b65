#include <algorithm>

#include "runtime/core/log.h"
#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

struct Visit {
  int32_t microbatch;
  int32_t chunk;
};

// The order of a rank's forwards; that of its backwards has the chunks
// reversed.
std::vector<Visit> Visits(int32_t chunks, int32_t microbatches, int32_t group) {
  std::vector<Visit> visits;
  visits.reserve(static_cast<size_t>(chunks) * microbatches);
  for (int32_t first = 0; first < microbatches; first += group) {
    const int32_t end = std::min(first + group, microbatches);
    for (int32_t chunk = 0; chunk < chunks; ++chunk) {
      for (int32_t microbatch = first; microbatch < end; ++microbatch) {
        visits.push_back({microbatch, chunk});
      }
    }
  }
  return visits;
}

}  // namespace

ComputeOrder InterleavedOrder(int32_t num_ranks, int32_t chunks,
                              int32_t microbatches, int32_t group) {
  CHECK_GE(group, num_ranks);
  const std::vector<Visit> visits = Visits(chunks, microbatches, group);
  const auto count = static_cast<int32_t>(visits.size());
  ComputeOrder order(num_ranks);
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    std::vector<ComputeStep>& steps = order[rank];
    steps.reserve(2 * count);
    const int32_t warm_up =
        std::min(count, (chunks - 1) * group + 2 * (num_ranks - 1 - rank));
    int32_t forward = 0;
    const auto run_forward = [&] {
      const Visit& visit = visits[forward++];
      steps.push_back(
          {InstructionKind::kForward, visit.microbatch, visit.chunk});
    };
    while (forward < warm_up) run_forward();
    for (const Visit& visit : visits) {
      if (forward < count) run_forward();
      steps.push_back({InstructionKind::kBackward, visit.microbatch,
                       chunks - 1 - visit.chunk});
    }
  }
  return order;
}

}  // namespace trireme
