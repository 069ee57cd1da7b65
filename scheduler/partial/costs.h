// What the ranks of a partial pipeline (Plan.skip) take and hold on a cluster,
// by the planner's ordinary cost and memory models: each rank as that of a
// pipeline without replicas through it, the head as a last stage without
// blocks.

#ifndef TRIREME_SCHEDULER_PARTIAL_COSTS_H_
#define TRIREME_SCHEDULER_PARTIAL_COSTS_H_

#include <cstdint>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/memory.h"

namespace trireme {

// One of a rank's chunks.
struct SkipChunkCost {
  // reduce_s and update_s are of one bucket.
  ChunkCost cost;
  int32_t buckets = 1;
};

struct SkipRankCost {
  // The rank's stage; on the first stage's ranks also the head.
  std::vector<SkipChunkCost> chunks;
  // Chunks as above.
  RankMemory memory;
};

struct SkipCosts {
  std::vector<SkipRankCost> ranks;  // by logical rank
  // Clipping, once all are there.
  double clip_s = 0;
};

// `plan` is resolved, has a `skip` and as many ranks as the cluster.
SkipCosts SkipCostsOf(const ModelShape& model, const ClusterModel& cluster,
                      const Plan& plan);

// Seconds of the model's units on one of the node's devices, for such a plan.
DeviceArithmetic SkipArithmeticOn(const ModelShape& model,
                                  const ClusterModel& cluster, const Plan& plan,
                                  int32_t node);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_COSTS_H_
