// Which pipeline rank has each of a model's blocks, and which skips between
// blocks therefore need no message.

#ifndef TRIREME_SCHEDULER_SCHEDULES_BLOCK_RANKS_H_
#define TRIREME_SCHEDULER_SCHEDULES_BLOCK_RANKS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/plan/plan.pb.h"

namespace trireme {

// In the model's order, of a resolved plan.
std::vector<int32_t> BlockRanks(const Plan& plan);

// Whether what block `made` makes and block `read` reads further on waits on
// the rank that has both, while stages between the two run on others: as in a
// V, whose rank r has stages r and 2·p − 1 − r. False where ranks are not known
// (none), or one rank has all blocks from the one to the other.
bool StaysOnRank(std::span<const int32_t> block_ranks, int64_t made,
                 int64_t read);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_BLOCK_RANKS_H_
