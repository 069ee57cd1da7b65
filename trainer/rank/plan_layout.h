// What one rank is in a plan: its place, the groups that it communicates in,
// its chunks of the model and its samples. Values alone: nothing is allocated.

#ifndef TRIREME_TRAINER_RANK_PLAN_LAYOUT_H_
#define TRIREME_TRAINER_RANK_PLAN_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "models/family.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/process_grid.h"
#include "scheduler/partial/timing.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

struct PlanLayout {
  ProcessGrid grid;
  CommunicatorOptions communicators;
  // By their index in the Program.
  std::vector<ChunkRequest> chunks;
  // Of each chunk but a partial pipeline's second, which is the head.
  std::vector<int32_t> stages;
  // The samples of the global batch that the rank's replica computes.
  int64_t first_sample = 0;
  int64_t local_batch = 0;
  // Absent in an ordinary pipeline.
  std::optional<SkipSchedule> skip;

  // Whose list of the Program the rank runs.
  int pipeline_rank() const;
  // How often each chunk runs in a step.
  std::vector<int> Contributions(const Plan& plan) const;
  // Of a partial pipeline: whether a microbatch comes to each rank of this
  // rank's stage.
  bool AllReplicasVisited() const;
};

// `plan` is resolved and valid for the model. Errors: a plan that the model
// cannot have.
absl::StatusOr<PlanLayout> LayOutPlan(const Plan& plan,
                                      const ModelFamily& family,
                                      int world_rank);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_PLAN_LAYOUT_H_
