// When the step of a partial pipeline ends, and what its ranks hold.

#include <algorithm>

#include "runtime/core/status.h"
#include "scheduler/partial/costs.h"
#include "scheduler/partial/plan.h"
#include "scheduler/partial/program.h"
#include "scheduler/partial/route.h"
#include "scheduler/plan/stage_ranks.h"

namespace trireme {
namespace {

class StepEnd {
 public:
  StepEnd(const Plan& plan, const SkipInstance& instance,
          const SkipSchedule& schedule, const SkipTimes& times,
          const PlanCosts& costs)
      : plan_(plan),
        instance_(instance),
        schedule_(schedule),
        times_(times),
        costs_(costs) {}

  double Seconds() const {
    double clipped = times_.makespan_s;
    for (int32_t stage = 0; stage < instance_.num_stages(); ++stage) {
      clipped = std::max(clipped, ReducedAt(stage));
    }
    clipped += costs_.cost.clip_s;
    double step = clipped;
    for (size_t rank = 0; rank < costs_.cost.chunks.size(); ++rank) {
      // A stage without visits takes no update.
      const int64_t stage = StageOfRank(plan_, static_cast<int64_t>(rank));
      if (!AnyVisited(static_cast<int32_t>(stage))) continue;
      const std::vector<ChunkCost>& chunks = costs_.cost.chunks[rank];
      double end = clipped;
      for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
        end +=
            BucketsOf(static_cast<int32_t>(rank), static_cast<int32_t>(chunk)) *
            chunks[chunk].update_s;
      }
      step = std::max(step, end);
    }
    return step;
  }

 private:
  bool AnyVisited(int32_t stage) const {
    const std::vector<int32_t>& group = instance_.groups[stage];
    return std::any_of(group.begin(), group.end(), [this](int32_t rank) {
      return !schedule_.order[rank].empty();
    });
  }

  bool AllVisited(int32_t stage) const {
    const std::vector<int32_t>& group = instance_.groups[stage];
    return std::none_of(group.begin(), group.end(), [this](int32_t rank) {
      return schedule_.order[rank].empty();
    });
  }

  double EndOf(const SkipTask& at) const {
    return StartOf(at) +
           TaskSeconds(instance_, schedule_.paths[at.microbatch], at.task);
  }

  double StartOf(const SkipTask& at) const {
    return times_
        .start_s[at.microbatch * instance_.tasks_per_microbatch() + at.task];
  }

  // The ranks of the first stage, which come first, have two chunks.
  int32_t BucketsOf(int32_t rank, int32_t chunk) const {
    return costs_
        .buckets[rank + std::min(rank, instance_.num_data_nodes()) + chunk];
  }

  // When bucket b of the rank's chunk can be reduced.
  double ReadyAt(int32_t rank, int32_t chunk, int32_t bucket,
                 bool when_complete) const {
    const std::vector<SkipTask>& order = schedule_.order[rank];
    if (order.empty()) return 0;
    if (!when_complete) return EndOf(order.back());
    // The chunk's last backward: the head's is in the loss.
    const auto last =
        std::find_if(order.rbegin(), order.rend(), [&](const SkipTask& task) {
          return chunk == 1 ? task.task == instance_.path_length
                            : IsBackwardTask(instance_.path_length, task.task);
        });
    const int32_t buckets = BucketsOf(rank, chunk);
    const double start = StartOf(*last);
    return start + (bucket + 1.0) / buckets * (EndOf(*last) - start);
  }

  // When all gradients of the stage's ranks are summed.
  double ReducedAt(int32_t stage) const {
    const std::vector<int32_t>& group = instance_.groups[stage];
    const bool when_complete = AllVisited(stage);
    const std::vector<ChunkCost>& chunks = costs_.cost.chunks[group.front()];
    double end = 0;
    // The head's come first.
    for (auto chunk = static_cast<int32_t>(chunks.size()) - 1; chunk >= 0;
         --chunk) {
      const int32_t buckets = BucketsOf(group.front(), chunk);
      for (int32_t bucket = 0; bucket < buckets; ++bucket) {
        for (const int32_t rank : group) {
          end = std::max(end, ReadyAt(rank, chunk, bucket, when_complete));
        }
        end += chunks[chunk].reduce_s;
      }
    }
    return end;
  }

  const Plan& plan_;
  const SkipInstance& instance_;
  const SkipSchedule& schedule_;
  const SkipTimes& times_;
  const PlanCosts& costs_;
};

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
  estimate.step_s = StepEnd(plan, instance, schedule, times, costs).Seconds();
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
