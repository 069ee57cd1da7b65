// Cuts a model's blocks into pipeline stages by their measured cost: the exact
// optimum, by dynamic programming.

#ifndef TRIREME_SCHEDULER_PLAN_STAGE_PARTITION_H_
#define TRIREME_SCHEDULER_PLAN_STAGE_PARTITION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program/program.h"

namespace trireme {

// Seconds of one microbatch, forward and backward.
struct PartitionCosts {
  std::vector<double> blocks;  // in the model's order
  // Before the first block (embedders, conditioning) and after the last one.
  double embedding = 0;
  double head = 0;
  // slowness[rank]: what all these take on the rank, relative to them. Empty:
  // ranks are alike.
  std::vector<double> slowness;
};

// Blocks per stage, at least 1 each, such that the largest time of any rank (of
// all its stages together) is least; among those the ones whose largest stage
// is least, and then those with more blocks in later stages, whose ranks hold
// fewer microbatches. `stages`: where each stage runs. Time O(stages·blocks²).
// Errors: fewer blocks than stages, a cost or slowness that is not finite and
// positive, a rank without slowness where others have one.
//
// A rank with several stages is exact only where its stages' times add up: one
// stage per rank, or equal blocks. Otherwise it is improved block by block from
// the best per-stage cut until no move of one block helps.
absl::StatusOr<std::vector<int64_t>> PartitionStages(
    const PartitionCosts& costs, const std::vector<StageLocation>& stages);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLAN_STAGE_PARTITION_H_
