#include "scheduler/schedules/block_ranks.h"

#include <algorithm>
#include <cstddef>

#include "scheduler/schedules/schedule.h"

namespace trireme {

std::vector<int32_t> BlockRanks(const Plan& plan) {
  const std::vector<StageLocation> stages = StagesOf(plan);
  std::vector<int32_t> ranks;
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    ranks.insert(ranks.end(), plan.stages(static_cast<int>(stage)).blocks(),
                 stages[stage].rank);
  }
  return ranks;
}

bool StaysOnRank(std::span<const int32_t> block_ranks, int64_t made,
                 int64_t read) {
  if (block_ranks.empty()) return false;
  const int32_t rank = block_ranks[made];
  const auto between = block_ranks.subspan(made, read - made);
  return block_ranks[read] == rank &&
         std::any_of(between.begin(), between.end(),
                     [rank](int32_t other) { return other != rank; });
}

}  // namespace trireme
