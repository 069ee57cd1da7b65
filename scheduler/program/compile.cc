#include "scheduler/program/compile.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/offload_pass.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/program/validator.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
absl::StatusOr<Program> CompilePlan(const Plan& plan,
                                    const CompileOptions& options) {
  if (plan.has_skip()) {
    return InvalidArgument(
        "plan.skip: found a partial pipeline, expected none: it is compiled by "
        "BuildSkipProgram");
  }
  const int64_t num_ranks = plan.grid().pp();
  const int64_t num_stages = num_ranks * plan.chunks_per_rank();
  const int64_t microbatches = plan.microbatches();
  if (num_stages < 1 || microbatches < 1 || plan.stages_size() != num_stages ||
      FindSchedule(plan.schedule()) == nullptr) {
    return InvalidArgument(
        "plan: found pp {}, chunks_per_rank {}, {} microbatches and {} stages, "
        "expected a resolved plan",
        num_ranks, plan.chunks_per_rank(), microbatches, plan.stages_size());
  }
  if (microbatches > kMaxMicrobatchesTimesStages / num_stages) {
    return InvalidArgument(
        "plan.microbatches: found {}, expected at most {} with {} stages",
        microbatches, kMaxMicrobatchesTimesStages / num_stages, num_stages);
  }
  std::vector<int32_t> units;
  if (plan.has_offload()) {
    for (const Plan::Stage& stage : plan.stages()) {
      units.push_back(static_cast<int32_t>(stage.blocks()));
    }
  }
  std::vector<int32_t> buckets = options.buckets_per_stage;
  if (buckets.empty()) buckets = units;
  if (buckets.empty()) buckets.assign(num_stages, 1);
  if (static_cast<int64_t>(buckets.size()) != num_stages ||
      *std::min_element(buckets.begin(), buckets.end()) < 0 ||
      (plan.has_offload() && buckets != units)) {
    return InvalidArgument(
        "buckets_per_stage: found {}, expected {} of at least 0, with offload "
        "the stages' blocks",
        fmt::join(buckets, ", "), num_stages);
  }
  // Whoever shards parameters gathers them where they are used, and where units
  // are offloaded each Fetch does.
  const bool gather_parameters = plan.grid().dp() > 1 && !plan.has_offload() &&
                                 (plan.sharding() == Plan::OPTIMIZER ||
                                  plan.sharding() == Plan::GRADIENTS);
  Program program = BuildProgram(OrderOf(plan), StagesOf(plan), microbatches,
                                 std::move(buckets), gather_parameters);
  if (plan.has_offload()) {
    program = OffloadUnits(
        program, static_cast<int32_t>(plan.offload().resident_units()),
        {.unit_major = ScheduleOf(plan).unit_major,
         .activations = plan.offload().activations()});
  }
  RETURN_IF_ERROR(ValidateProgram(program));
  return program;
}

}  // namespace trireme
