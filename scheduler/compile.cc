#include "scheduler/compile.h"

#include <utility>

#include "runtime/core/status.h"
#include "scheduler/program_builder.h"
#include "scheduler/schedule_gpipe.h"
#include "scheduler/schedule_one_f_one_b.h"
#include "scheduler/validator.h"

namespace trireme {
namespace {

// Instructions are indexed by int32 and each microbatch makes at most six on a
// rank; well below that, a Program no longer fits into memory.
constexpr int64_t kMaxMicrobatchesTimesRanks = int64_t{1} << 28;

}  // namespace

absl::StatusOr<Program> CompilePlan(const Plan& plan,
                                    const CompileOptions& options) {
  const int64_t num_ranks = plan.grid().pp();
  const int64_t microbatches = plan.microbatches();
  if (num_ranks < 1 || microbatches < 1 || plan.stages_size() != num_ranks) {
    return InvalidArgument(
        "plan: found pp {}, {} microbatches and {} stages, expected a resolved "
        "plan",
        num_ranks, microbatches, plan.stages_size());
  }
  if (microbatches > kMaxMicrobatchesTimesRanks / num_ranks) {
    return InvalidArgument(
        "plan.microbatches: found {}, expected at most {} with grid.pp {}",
        microbatches, kMaxMicrobatchesTimesRanks / num_ranks, num_ranks);
  }
  std::vector<int32_t> buckets = options.buckets_per_stage;
  if (buckets.empty()) buckets.assign(num_ranks, 1);
  if (static_cast<int64_t>(buckets.size()) != num_ranks) {
    return InvalidArgument("buckets_per_stage: found {} entries, expected {}",
                           buckets.size(), num_ranks);
  }
  for (size_t stage = 0; stage < buckets.size(); ++stage) {
    if (buckets[stage] < 1) {
      return InvalidArgument(
          "buckets_per_stage[{}]: found {}, expected at least 1", stage,
          buckets[stage]);
    }
  }

  ComputeOrder order;
  switch (plan.schedule()) {
    case Plan::GPIPE:
      order = GPipeOrder(num_ranks, microbatches);
      break;
    case Plan::ONE_F_ONE_B:
      order = OneFOneBOrder(num_ranks, microbatches);
      break;
    default:
      return InvalidArgument(
          "plan.schedule: found {}, expected GPIPE or ONE_F_ONE_B",
          static_cast<int>(plan.schedule()));
  }
  Program program = BuildProgram(order, OneStagePerRank(num_ranks),
                                 microbatches, std::move(buckets));
  RETURN_IF_ERROR(ValidateProgram(program));
  return program;
}

}  // namespace trireme
