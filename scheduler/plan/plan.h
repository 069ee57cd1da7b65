// Filling in, checking and reading a Plan (plan.proto), and the simple rule
// that chooses one where the user gives none.
//
// Errors are InvalidArgument and name the field, what was found and what was
// expected, as "plan.grid.tp: found 3, expected a divisor of the 4 heads".
// Whoever read the plan from a file adds its name. Pure functions; any thread.

#ifndef TRIREME_SCHEDULER_PLAN_PLAN_H_
#define TRIREME_SCHEDULER_PLAN_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/plan/stage_partition.h"

namespace trireme {

// What a plan must fit.
struct PlanContext {
  // Ranks in the job.
  int64_t world_size = 1;
  // Samples per step over the whole job.
  int64_t global_batch = 1;
  // Width of the MLPs, which tp must divide; 0 if the model has none.
  int64_t mlp_hidden = 0;
  // Blocks of the model.
  int64_t num_blocks = 1;
  // Attention heads, which tp must divide; 0 if the model has none.
  int64_t heads = 0;
  // Experts of a mixture, which ep must divide, or which divide it; then
  // ep / experts divides their channels. 0 if the model has none.
  int64_t experts = 0;
  int64_t expert_hidden = 0;
  // Width of the MLP that all tokens go through beside them, which tp must
  // divide; 0 if there is none.
  int64_t shared_hidden = 0;
  // Whether the model shares a sample's tokens over cp, and between products
  // over tp.
  bool context_parallel = true;
  bool sequence_parallel = true;
  // In any unit. Where given, stages that a plan leaves out are cut by them,
  // one for each rank (with several, and in a partial pipeline, evenly).
  std::optional<PartitionCosts> costs = std::nullopt;
};

// Ranks that a plan asks for, which may leave out axes. Errors: an axis of no
// ranks, or too many in all.
absl::StatusOr<int64_t> RanksOf(const Plan& plan);

// The plan with every field but `predicted` set, and valid. `plan` may leave
// out any field.
absl::StatusOr<Plan> ResolvePlan(const Plan& plan, const PlanContext& context);

// OK if the resolved plan `plan` (no field left out) fits `context`.
absl::Status ValidatePlan(const Plan& plan, const PlanContext& context);

struct DefaultedPlan {
  Plan plan;  // resolved
  // A sentence or two for the user: what was chosen and by which rule.
  std::string explanation;
};

// A grid for whoever does not want to think about it. The rule: of (tp, pp) =
// (2, 2), (2, 1), (1, 2), (1, 1) the first where tp divides the heads and the
// MLP's width, each stage has at least two blocks, and the ranks left over form
// a dp that divides the global batch; with pp = 2 each replica must also have
// at least two samples to pipeline. An error if none fits (ranks that cannot
// share the batch evenly).
absl::StatusOr<DefaultedPlan> DefaultPlan(const PlanContext& context);

// Blocks per stage of the default split: see plan.proto.
std::vector<int64_t> EvenStages(int64_t num_blocks, int64_t num_stages);

// Position of a logical rank on each axis.
struct GridCoordinates {
  int64_t tp = 0;
  int64_t cp = 0;
  int64_t dp = 0;
  int64_t pp = 0;

  friend bool operator==(const GridCoordinates&,
                         const GridCoordinates&) = default;
};

// Blocks that each pipeline rank of a resolved plan has, over all its stages.
std::vector<int64_t> BlocksOfRanks(const Plan& plan);

// Ranks that a resolved plan's grid has.
int64_t GridSize(const Plan::Grid& grid);
GridCoordinates CoordinatesOf(const Plan::Grid& grid, int64_t logical_rank);
int64_t LogicalRankOf(const Plan::Grid& grid,
                      const GridCoordinates& coordinates);
// Through the plan's placement.
int64_t PhysicalRankOf(const Plan& plan, int64_t logical_rank);

// "tp 2 x pp 2 x dp 1 (4 ranks), ONE_F_ONE_B, 8 microbatches of 4 samples,
// stages of 6+6 blocks".
std::string Summary(const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLAN_PLAN_H_
