// Which devices a plan's ranks should run on.
//
// Ranks are placed in units that stay together on a node: the tp·cp ranks of a
// stage where nodes hold them whole, else the tp ranks. What counts is each
// unit's node. The cost of a placement is that of the slowest pipeline
// ((n − 1) times its slowest stage, the sum of its stages, a round trip of
// messages for every p microbatches) and of the slowest gradient reduction,
// over all stages.
//
// That is a closed form, which leaves out much that simulation knows: a search
// is to simulate the best few (placed_steps.h).
//
// Small clusters are searched whole, nodes that are alike being interchangeable
// until one of them is in use. Larger ones are annealed: several seeded chains
// with the five moves of Pipette (reverse a segment, move one unit, swap two,
// move a segment, move it reversed) from greedy starts. A move costs only the
// pipelines and reductions whose nodes it changes.

#ifndef TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_H_
#define TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

struct PlacementOptions {
  uint64_t seed = 1;
  int32_t chains = 3;
  // Of each chain.
  int32_t moves = 20000;
  // Search the whole space where it has at most so many placements.
  int64_t exhaustive_limit = 3000;
  // Distinct placements in the result.
  int32_t keep = 8;
};

struct Placement {
  // physical[logical rank].
  std::vector<int32_t> physical;
  // The best ones, that one first, and the one with the ranks in order last.
  std::vector<std::vector<int32_t>> ranked;
  // So many successive logical ranks stay together.
  int32_t unit_ranks = 1;
  // Seconds by the cost above.
  double cost_s = 0;
  bool exhaustive = false;
};

// `plan` must be resolved; its own placement is ignored. Deterministic.
Placement PlaceRanks(const ModelShape& model, const ClusterModel& cluster,
                     const Plan& plan, const PlacementOptions& options);

// The nodes in an order in which neighbours have fast links: from node 0 always
// on to the one with the fastest slower direction.
std::vector<int32_t> NodeChain(const ClusterModel& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_H_
