// When the step of a partial pipeline ends, and what its ranks hold.

#include <algorithm>

#include "runtime/core/status.h"
#include "scheduler/partial/costs.h"
#include "scheduler/partial/plan.h"
#include "scheduler/partial/program.h"
#include "scheduler/partial/route.h"

namespace trireme {
namespace {

double StepSeconds(const SkipInstance& instance, const SkipSchedule& schedule,
                   const SkipTimes& times, const PlanCosts& costs) {
  const auto visited = [&](int32_t rank) {
    return !schedule.order[rank].empty();
  };
  const auto start_of = [&](const SkipTask& at) {
    return times
        .start_s[at.microbatch * instance.tasks_per_microbatch() + at.task];
  };
  const auto end_of = [&](const SkipTask& at) {
    return start_of(at) +
           TaskSeconds(instance, schedule.paths[at.microbatch], at.task);
  };
  // The ranks of the first stage, which come first, have two chunks.
  const auto buckets_of = [&](int32_t rank, int32_t chunk) {
    return costs
        .buckets[rank + std::min(rank, instance.num_data_nodes()) + chunk];
  };
  // When the rank has the bucket's gradients: inside the chunk's last backward
  // or, where it reduces in the order of its list, after all else.
  const auto ready = [&](int32_t rank, int32_t chunk, int32_t bucket,
                         bool when_complete) {
    const std::vector<SkipTask>& order = schedule.order[rank];
    if (order.empty()) return 0.0;
    if (!when_complete) return end_of(order.back());
    // The head's backward is in the loss.
    const SkipTask& last =
        *std::find_if(order.rbegin(), order.rend(), [&](const SkipTask& task) {
          return chunk == 1 ? task.task == instance.path_length
                            : IsBackwardTask(instance.path_length, task.task);
        });
    return start_of(last) + (bucket + 1.0) / buckets_of(rank, chunk) *
                                (end_of(last) - start_of(last));
  };
  double clipped = times.makespan_s;
  for (const std::vector<int32_t>& group : instance.groups) {
    const bool all_visited = std::all_of(group.begin(), group.end(), visited);
    const std::vector<ChunkCost>& chunks = costs.cost.chunks[group.front()];
    double reduced = 0;
    // The head's come first.
    for (auto chunk = static_cast<int32_t>(chunks.size()) - 1; chunk >= 0;
         --chunk) {
      for (int32_t b = 0; b < buckets_of(group.front(), chunk); ++b) {
        for (const int32_t rank : group) {
          reduced = std::max(reduced, ready(rank, chunk, b, all_visited));
        }
        reduced += chunks[chunk].reduce_s;
      }
    }
    clipped = std::max(clipped, reduced);
  }
  clipped += costs.cost.clip_s;
  double step = clipped;
  for (const std::vector<int32_t>& group : instance.groups) {
    // A stage without visits takes no update.
    if (std::none_of(group.begin(), group.end(), visited)) continue;
    for (const int32_t rank : group) {
      double updated = clipped;
      const std::vector<ChunkCost>& chunks = costs.cost.chunks[rank];
      for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
        updated += buckets_of(rank, static_cast<int32_t>(chunk)) *
                   chunks[chunk].update_s;
      }
      step = std::max(step, updated);
    }
  }
  return step;
}

}  // namespace

absl::StatusOr<SkipEstimate> EstimateSkipPlan(const ModelShape& model,
                                              const ClusterModel& cluster,
                                              const Plan& plan) {
  const SkipInstance instance = RoutedInstance(model, cluster, plan);
  const PlanCosts costs = SkipCostsOf(model, cluster, plan);
  ASSIGN_OR_RETURN(const SkipSchedule schedule, SkipScheduleOf(plan));
  ASSIGN_OR_RETURN(const SkipTimes times, TimeSkipSchedule(instance, schedule));
  SkipEstimate estimate;
  estimate.paths_s = times.makespan_s;
  estimate.step_s = StepSeconds(instance, schedule, times, costs);
  ASSIGN_OR_RETURN(const SkipProgram compiled,
                   BuildSkipProgram(instance, schedule, costs.buckets));
  for (size_t rank = 0; rank < costs.memory.ranks.size(); ++rank) {
    const RankMemory& memory = costs.memory.ranks[rank];
    estimate.peak.push_back(
        PeakInListOrder(compiled.program, static_cast<int32_t>(rank), memory)
            .at_peak);
    estimate.limit.push_back(memory.limit_bytes);
  }
  return estimate;
}

absl::Status CheckSkipMemory(const SkipEstimate& estimate) {
  for (size_t rank = 0; rank < estimate.peak.size(); ++rank) {
    const int64_t over = estimate.peak[rank].total() - estimate.limit[rank];
    if (estimate.limit[rank] == 0 || over <= 0) continue;
    return ResourceExhausted(
        "plan: found a peak of {} on rank {}, expected at most its device's {} "
        "bytes ({} fewer); fewer slots, a smaller microbatch_size or recompute "
        "FULL need less",
        ToText(estimate.peak[rank]), rank, estimate.limit[rank], over);
  }
  return absl::OkStatus();
}

Plan::Prediction PredictionOf(const SkipEstimate& estimate) {
  Plan::Prediction predicted;
  predicted.set_step_s(estimate.step_s);
  for (const MemoryBytes& peak : estimate.peak) {
    *predicted.add_peak_bytes() = ToProto(peak);
  }
  return predicted;
}

}  // namespace trireme
