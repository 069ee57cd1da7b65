// The plans that a job is verified under: every grid that its model and batch
// allow on up to so many ranks, on each grid every parallel mode, and modes
// together. Partial pipelines, which are compared with another model, are not
// among them.

#ifndef TRIREME_TRAINER_VERIFICATION_PLAN_MATRIX_H_
#define TRIREME_TRAINER_VERIFICATION_PLAN_MATRIX_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/plan/plan.h"

namespace trireme {

struct PlanMatrix {
  struct Entry {
    Plan plan;  // resolved
    // Position of the first plan of the list from which only pipeline,
    // schedule, recompute and offload differ: not one bit of its result may. -1
    // if it is the first of its kind.
    int64_t same_bits_as = -1;
  };
  // No two are equal; plans of one kind follow each other.
  std::vector<Entry> entries;
  // Grids, and modes on the others, that do not fit the model or the batch:
  // their number by ResolvePlan's reason.
  std::map<std::string, int64_t> left_out;
};

// Plans of 1 to `max_ranks` ranks: all grids tp x cp x pp x dp, of models with
// experts with every ep that divides them as well, each with one
// mode after another changed (accumulation, sequence parallelism, head
// exchange, each schedule, uneven stages, three chunks a rank, larger groups of
// microbatches, each sharding over all replicas and over groups of them, bf16
// messages, each recompute, offload), and where several axes are in use with
// some of them together. Replicas have as many microbatches under each
// pipeline, so that bits can be compared. The first entry is one rank with one
// microbatch. `context.world_size` is ignored.
PlanMatrix MakePlanMatrix(const PlanContext& context, int64_t max_ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_VERIFICATION_PLAN_MATRIX_H_
