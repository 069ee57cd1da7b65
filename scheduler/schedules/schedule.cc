#include "scheduler/schedules/schedule.h"

#include <algorithm>

#include "runtime/core/log.h"
#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

constexpr int32_t kMostChunks = 1024;

using Sizes = ScheduleSizes;

constexpr Schedule kSchedules[] = {
    {.id = Plan::ONE_F_ONE_B,
     .order =
         [](const Sizes& sizes) {
           return OneFOneBOrder(sizes.ranks, sizes.microbatches);
         }},
    {.id = Plan::INTERLEAVED,
     .most_chunks = kMostChunks,
     .default_chunks = 2,
     .groups_microbatches = true,
     .order =
         [](const Sizes& sizes) {
           return InterleavedOrder(sizes.ranks, sizes.chunks,
                                   sizes.microbatches, sizes.group);
         }},
    {.id = Plan::ZB_H1,
     .splits_backward = true,
     .order =
         [](const Sizes& sizes) {
           return ZeroBubbleH1Order(sizes.ranks, sizes.microbatches);
         }},
    {.id = Plan::ZB_V,
     .least_chunks = 2,
     .most_chunks = 2,
     .default_chunks = 2,
     .splits_backward = true,
     .layout = StageLayout::kVee,
     .order =
         [](const Sizes& sizes) {
           return ZeroBubbleVOrder(sizes.ranks, sizes.microbatches);
         }},
    {.id = Plan::GPIPE,
     .order =
         [](const Sizes& sizes) {
           return GPipeOrder(sizes.ranks, sizes.microbatches);
         }},
    {.id = Plan::UNIT_MAJOR,
     .unit_major = true,
     .order =
         [](const Sizes& sizes) {
           return GPipeOrder(sizes.ranks, sizes.microbatches);
         }},
};

}  // namespace

std::span<const Schedule> AllSchedules() { return kSchedules; }

std::vector<Plan::Schedule> AllScheduleIds() {
  std::vector<Plan::Schedule> ids;
  for (const Schedule& schedule : kSchedules) ids.push_back(schedule.id);
  return ids;
}

const Schedule* FindSchedule(Plan::Schedule id) {
  for (const Schedule& schedule : kSchedules) {
    if (schedule.id == id) return &schedule;
  }
  return nullptr;
}

const Schedule& ScheduleOf(const Plan& plan) {
  const Schedule* schedule = FindSchedule(plan.schedule());
  CHECK(schedule != nullptr);
  return *schedule;
}

ComputeOrder OrderOf(const Plan& plan) {
  return ScheduleOf(plan).order(
      {.ranks = static_cast<int32_t>(plan.grid().pp()),
       .chunks = static_cast<int32_t>(plan.chunks_per_rank()),
       .microbatches = static_cast<int32_t>(plan.microbatches()),
       .group = static_cast<int32_t>(plan.microbatch_group())});
}

std::vector<StageLocation> StagesOf(const Plan& plan) {
  const auto num_ranks = static_cast<int32_t>(plan.grid().pp());
  const StageLayout layout = ScheduleOf(plan).layout;
  std::vector<StageLocation> stages(plan.stages_size());
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages.size());
       ++stage) {
    const int32_t chunk = stage / num_ranks;
    const int32_t rank = stage % num_ranks;
    const bool mirrored = layout == StageLayout::kVee && chunk % 2 == 1;
    stages[stage] = {.rank = mirrored ? num_ranks - 1 - rank : rank,
                     .chunk = chunk};
  }
  return stages;
}

std::vector<int32_t> MostInFlight(const ComputeOrder& order) {
  std::vector<int32_t> most;
  for (const std::vector<ComputeStep>& steps : order) {
    int32_t now = 0, largest = 0;
    for (const ComputeStep& step : steps) {
      if (step.kind == InstructionKind::kForward) {
        largest = std::max(largest, ++now);
      } else if (step.kind != InstructionKind::kBackwardWeight) {
        --now;
      }
    }
    most.push_back(largest);
  }
  return most;
}

const std::vector<int32_t>& InFlightCounts::Of(const Plan& plan) {
  const auto [found, is_new] = counts_.try_emplace(
      {plan.schedule(), plan.grid().pp(), plan.chunks_per_rank(),
       plan.microbatches(), plan.microbatch_group()});
  if (is_new) found->second = MostInFlight(OrderOf(plan));
  return found->second;
}

}  // namespace trireme
