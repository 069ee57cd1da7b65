// The pipeline schedules, a row each: all that anything else asks of one. A new
// schedule is a pure function in a file of its own, and a row in schedule.cc
// (docs/adding.md).

#ifndef TRIREME_SCHEDULER_SCHEDULES_SCHEDULE_H_
#define TRIREME_SCHEDULER_SCHEDULES_SCHEDULE_H_

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"
#include "scheduler/program/program_builder.h"

namespace trireme {

struct ScheduleSizes {
  int32_t ranks = 1;  // of the pipeline
  int32_t chunks = 1;
  int32_t microbatches = 1;
  int32_t group = 1;  // Plan.microbatch_group, where the schedule has groups
};

// Where the stages of p ranks run.
enum class StageLayout : uint8_t {
  // Chunk k of rank r is stage k·p + r.
  kRounds,
  // The same with every other chunk mirrored: chunk 1 of rank r is stage
  // 2·p − 1 − r.
  kVee,
};

struct Schedule {
  Plan::Schedule id = Plan::SCHEDULE_UNSPECIFIED;
  // Chunks of a rank: as many as a plan may have, and has where it says
  // nothing.
  int32_t least_chunks = 1;
  int32_t most_chunks = 1;
  int32_t default_chunks = 1;
  // Whether a plan has a microbatch_group, of at least p microbatches.
  bool groups_microbatches = false;
  // Whether backwards come in halves, BackwardInput and BackwardWeight.
  bool splits_backward = false;
  // Whether a unit of the one rank runs all microbatches that follow one
  // another in the order before the next unit runs any; a plan then has
  // offload, which divides chunks into units
  // (scheduler/program/offload_pass.h).
  bool unit_major = false;
  StageLayout layout = StageLayout::kRounds;
  ComputeOrder (*order)(const ScheduleSizes& sizes) = nullptr;
};

// In the order in which a search tries them.
std::span<const Schedule> AllSchedules();
std::vector<Plan::Schedule> AllScheduleIds();
// Null where there is none.
const Schedule* FindSchedule(Plan::Schedule id);
// Of a plan that has one.
const Schedule& ScheduleOf(const Plan& plan);

// Of a resolved plan.
ComputeOrder OrderOf(const Plan& plan);
std::vector<StageLocation> StagesOf(const Plan& plan);

// [rank]: the most microbatches, summed over its chunks, whose forward has
// begun and whose Backward or BackwardInput has not ended.
std::vector<int32_t> MostInFlight(const ComputeOrder& order);

// MostInFlight of plans, counted once for all that share schedule and sizes.
class InFlightCounts {
 public:
  const std::vector<int32_t>& Of(const Plan& plan);

 private:
  std::map<std::tuple<Plan::Schedule, uint32_t, uint32_t, uint32_t, uint32_t>,
           std::vector<int32_t>>
      counts_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_SCHEDULE_H_
