#include "scheduler/planner/search.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/compile.h"
#include "scheduler/plan.h"
#include "scheduler/stage_partition.h"
#include "scheduler/validator.h"

namespace trireme {
namespace {

constexpr double kGigabyte = 1e9;

// Cuts stages by cost, and remembers: cuts depend only on how the embedding and
// the head compare with a block.
class StageCutter {
 public:
  absl::Status Cut(const PlanCoster& coster, Plan& plan) {
    PartitionCosts costs = coster.BlockTimes();
    const double block = costs.blocks.front();
    // To a hundredth of a block, so that like candidates share the cut.
    const int64_t embedding = std::llround(100 * costs.embedding / block);
    const int64_t head = std::llround(100 * costs.head / block);
    const auto key = std::tuple(plan.stages_size(), plan.grid().pp(),
                                plan.schedule() == Plan::ZB_V, embedding, head);
    auto found = cuts_.find(key);
    if (found == cuts_.end()) {
      costs.blocks.assign(costs.blocks.size(), 1.0);
      costs.embedding = static_cast<double>(embedding) / 100;
      costs.head = static_cast<double>(head) / 100;
      const std::vector<StageLocation> stages = StagesOf(plan);
      ASSIGN_OR_RETURN(std::vector<int64_t> cut,
                       PartitionStages(costs, stages));
      // Exact for one stage per rank; with several an even cut may be better.
      std::vector<int64_t> even =
          EvenStages(static_cast<int64_t>(costs.blocks.size()),
                     static_cast<int64_t>(stages.size()));
      if (LargestRank(costs, stages, even) < LargestRank(costs, stages, cut)) {
        cut = std::move(even);
      }
      found = cuts_.emplace(key, std::move(cut)).first;
    }
    plan.clear_stages();
    for (const int64_t blocks : found->second) {
      plan.add_stages()->set_blocks(static_cast<uint32_t>(blocks));
    }
    return absl::OkStatus();
  }

 private:
  // Blocks cost 1 each.
  static double LargestRank(const PartitionCosts& costs,
                            const std::vector<StageLocation>& stages,
                            const std::vector<int64_t>& cut) {
    std::vector<double> ranks(stages.size(), 0.0);
    for (size_t i = 0; i < stages.size(); ++i) {
      ranks[stages[i].rank] += static_cast<double>(cut[i]);
    }
    ranks[stages.front().rank] += costs.embedding;
    ranks[stages.back().rank] += costs.head;
    return *std::max_element(ranks.begin(), ranks.end());
  }

  std::map<std::tuple<int, uint32_t, bool, int64_t, int64_t>,
           std::vector<int64_t>>
      cuts_;
};

absl::StatusOr<Plan> UncutPlan(const ModelShape& model,
                               const ClusterModel& cluster,
                               int64_t global_batch,
                               const Candidate& candidate) {
  Plan plan;
  Plan::Grid& grid = *plan.mutable_grid();
  grid.set_tp(candidate.tp);
  grid.set_cp(candidate.cp);
  grid.set_dp(candidate.dp);
  grid.set_pp(candidate.pp);
  plan.set_schedule(candidate.schedule);
  plan.set_chunks_per_rank(candidate.chunks);
  plan.set_microbatch_size(candidate.microbatch_size);
  plan.set_ulysses(candidate.ulysses);
  plan.set_sequence_parallel(candidate.sequence_parallel);
  plan.set_sharding(candidate.sharding);
  plan.set_recompute(candidate.recompute);
  return ResolvePlan(plan, {.world_size = cluster.num_ranks(),
                            .global_batch = global_batch,
                            .num_blocks = model.layers,
                            .heads = model.heads});
}

void PlaceAt(const std::vector<int32_t>& physical, Plan& plan) {
  plan.mutable_placement()->Assign(physical.begin(), physical.end());
}

// Devices along fast links.
std::vector<int32_t> ChainedRanks(const ClusterModel& cluster) {
  std::vector<int32_t> ranks;
  for (const int32_t node : NodeChain(cluster)) {
    for (int32_t i = 0; i < cluster.nodes[node].count; ++i) {
      ranks.push_back(cluster.nodes[node].first_rank + i);
    }
  }
  return ranks;
}

class Search {
 public:
  Search(const PlannerInput& input, const ClusterModel& cluster)
      : input_(input), cluster_(cluster), ranks_(ChainedRanks(cluster)) {}

  absl::StatusOr<PlanReport> Run() {
    report_.candidates = EnumerateCandidates(
        input_.model, cluster_, input_.global_batch, input_.options.space);
    RETURN_IF_ERROR(Bound());
    RETURN_IF_ERROR(SimulatePromising());
    RETURN_IF_ERROR(PlaceBest());
    GiveVerdicts();
    return std::move(report_);
  }

 private:
  absl::StatusOr<Plan> UncutPlanOf(const Candidate& candidate) const {
    ASSIGN_OR_RETURN(Plan plan, UncutPlan(input_.model, cluster_,
                                          input_.global_batch, candidate));
    PlaceAt(ranks_, plan);
    return plan;
  }

  absl::StatusOr<Plan> PlanOf(const Candidate& candidate) {
    ASSIGN_OR_RETURN(Plan plan, UncutPlanOf(candidate));
    const PlanCoster coster = CosterOf(plan);
    RETURN_IF_ERROR(cutter_.Cut(coster, plan));
    return plan;
  }

  // With the rings of its grid, which many candidates share. `plan` must be
  // placed at ranks_.
  PlanCoster CosterOf(const Plan& plan) {
    const Plan::Grid& grid = plan.grid();
    std::shared_ptr<const PlanRings>& rings =
        rings_[std::tuple(grid.tp(), grid.cp(), grid.dp(), grid.pp())];
    PlanCoster coster(input_.model, cluster_, plan, input_.traits, rings);
    rings = coster.rings();
    return coster;
  }

  absl::Status Bound() {
    for (size_t i = 0; i < report_.candidates.size(); ++i) {
      Candidate& candidate = report_.candidates[i];
      if (candidate.verdict != VerdictCode::kPending) continue;
      absl::StatusOr<Plan> found = UncutPlanOf(candidate);
      if (!found.ok()) {
        candidate.verdict = VerdictCode::kUnsupported;
        continue;
      }
      Plan& plan = *found;
      const PlanCoster coster = CosterOf(plan);
      RETURN_IF_ERROR(cutter_.Cut(coster, plan));
      const PlanCosts costs = coster.CostsOf(0);
      for (int32_t pp = 0; pp < candidate.pp; ++pp) {
        const int64_t over = PeakLowerBound(plan, costs, pp) -
                             costs.memory.ranks[pp].limit_bytes;
        if (over > candidate.over_bytes) {
          candidate.verdict = VerdictCode::kOutOfMemory;
          candidate.over_bytes = over;
          candidate.pp_rank = pp;
        }
      }
      if (candidate.verdict != VerdictCode::kPending) continue;
      candidate.step_s = StepLowerBound(plan, costs);
      order_.emplace_back(LikelySeconds(plan, costs), i);
    }
    std::sort(order_.begin(), order_.end());
    return absl::OkStatus();
  }

  // What the bound leaves out, roughly: messages that a round trip exposes, and
  // gradients that no backward hides.
  static double LikelySeconds(const Plan& plan, const PlanCosts& costs) {
    double seconds = StepLowerBound(plan, costs);
    const size_t ranks = costs.cost.chunks.size();
    for (size_t pp = 0; pp + 1 < ranks && !costs.cost.links.empty(); ++pp) {
      for (const size_t at : {pp * ranks + pp + 1, (pp + 1) * ranks + pp}) {
        const LinkCost& link = costs.cost.links[at];
        seconds +=
            (link.latency_s +
             static_cast<double>(costs.cost.chunks[pp][0].message_bytes) /
                 link.bytes_per_s) *
            plan.microbatches() / static_cast<double>(ranks) *
            plan.chunks_per_rank();
      }
    }
    double exposed = 0;
    for (size_t pp = 0; pp < ranks; ++pp) {
      double rank = 0;
      for (const ChunkCost& chunk : costs.cost.chunks[pp]) {
        const double reduce =
            static_cast<double>(costs.buckets[pp]) * chunk.reduce_s;
        rank += std::max(chunk.reduce_s, reduce - chunk.backward_s) +
                static_cast<double>(costs.buckets[pp]) * chunk.gather_s;
      }
      exposed = std::max(exposed, rank);
    }
    return seconds + exposed;
  }

  absl::Status SimulatePromising() {
    int64_t instructions = 0;
    for (const auto& [likely, index] : order_) {
      Candidate& candidate = report_.candidates[index];
      if (!input_.options.exhaustive) {
        if (instructions > input_.options.max_instructions) break;
        if (static_cast<int32_t>(fastest_.size()) >= input_.options.placed &&
            candidate.step_s > WorstKept()) {
          continue;
        }
      }
      ASSIGN_OR_RETURN(Plan plan, PlanOf(candidate));
      ASSIGN_OR_RETURN(Estimate estimate, EstimatePlan(input_.model, cluster_,
                                                       plan, input_.traits));
      for (const auto& list : estimate.program.ranks) {
        instructions += static_cast<int64_t>(list.size());
      }
      ++report_.simulated;
      candidate.simulated = true;
      candidate.step_s = estimate.step_s;
      const Overflow overflow = WorstOverflow(estimate);
      if (overflow.bytes > 0) {
        candidate.verdict = VerdictCode::kOutOfMemory;
        candidate.over_bytes = overflow.bytes;
        candidate.pp_rank = overflow.pp;
        continue;
      }
      fastest_.emplace_back(candidate.step_s, index);
      std::sort(fastest_.begin(), fastest_.end());
    }
    if (!fastest_.empty()) return absl::OkStatus();
    return NothingFits();
  }

  double WorstKept() const { return fastest_[input_.options.placed - 1].first; }

  absl::Status NothingFits() {
    const Candidate* nearest = nullptr;
    for (const Candidate& candidate : report_.candidates) {
      if (candidate.verdict != VerdictCode::kOutOfMemory) continue;
      if (nearest == nullptr || candidate.over_bytes < nearest->over_bytes) {
        nearest = &candidate;
      }
    }
    if (nearest == nullptr) {
      return NotFound(
          "planner: found no way to divide {} layers, {} heads, {} tokens and "
          "a "
          "global batch of {} over {} devices, expected one",
          input_.model.layers, input_.model.heads, input_.model.tokens,
          input_.global_batch, cluster_.num_ranks());
    }
    ASSIGN_OR_RETURN(const Plan plan, PlanOf(*nearest));
    ASSIGN_OR_RETURN(const Estimate estimate,
                     EstimatePlan(input_.model, cluster_, plan, input_.traits));
    const absl::Status memory =
        ValidateMemory(estimate.program, estimate.memory);
    return ResourceExhausted(
        "planner: found no plan that fits the devices' memory, expected one; "
        "nearest, over by at least {:.1f} GB: {}{}",
        static_cast<double>(nearest->over_bytes) / kGigabyte, ToText(*nearest),
        memory.ok()
            ? ""
            : fmt::format(": pipeline {}", std::string(memory.message())));
  }

  absl::Status PlaceBest() {
    const size_t count = std::min<size_t>(
        fastest_.size(), std::max(input_.options.best, input_.options.placed));
    for (size_t i = 0; i < count; ++i) {
      Candidate& candidate = report_.candidates[fastest_[i].second];
      RankedPlan ranked;
      ASSIGN_OR_RETURN(ranked.plan, PlanOf(candidate));
      ASSIGN_OR_RETURN(
          ranked.estimate,
          EstimatePlan(input_.model, cluster_, ranked.plan, input_.traits));
      if (cluster_.num_nodes() > 1 &&
          static_cast<int32_t>(i) < input_.options.placed) {
        Plan placed = ranked.plan;
        PlaceAt(PlaceRanks(input_.model, cluster_, placed, input_.traits,
                           input_.options.placement)
                    .physical,
                placed);
        ASSIGN_OR_RETURN(
            Estimate estimate,
            EstimatePlan(input_.model, cluster_, placed, input_.traits));
        if (estimate.step_s < ranked.estimate.step_s &&
            WorstOverflow(estimate).bytes <= 0) {
          ranked.plan = std::move(placed);
          ranked.estimate = std::move(estimate);
        }
      }
      candidate.step_s = ranked.estimate.step_s;
      ranked.candidate = candidate;
      *ranked.plan.mutable_predicted() =
          PredictionOf(ranked.plan, ranked.estimate);
      report_.best.push_back(std::move(ranked));
      chosen_.push_back(fastest_[i].second);
    }
    // Ties keep the order in which candidates are enumerated.
    std::vector<size_t> ranking(report_.best.size());
    for (size_t i = 0; i < ranking.size(); ++i) ranking[i] = i;
    std::sort(ranking.begin(), ranking.end(), [&](size_t a, size_t b) {
      return std::tuple(report_.best[a].estimate.step_s, chosen_[a]) <
             std::tuple(report_.best[b].estimate.step_s, chosen_[b]);
    });
    ranking.resize(
        std::min<size_t>(ranking.size(), std::max(1, input_.options.best)));
    std::vector<RankedPlan> best;
    std::vector<size_t> chosen;
    for (const size_t i : ranking) {
      best.push_back(std::move(report_.best[i]));
      chosen.push_back(chosen_[i]);
    }
    report_.best = std::move(best);
    chosen_ = std::move(chosen);
    return absl::OkStatus();
  }

  void GiveVerdicts() {
    const double best = report_.best.front().estimate.step_s;
    for (Candidate& candidate : report_.candidates) {
      if (candidate.verdict != VerdictCode::kPending) continue;
      candidate.verdict = candidate.simulated || candidate.step_s >= best
                              ? VerdictCode::kDominated
                              : VerdictCode::kUnlikely;
    }
    for (size_t i = 0; i < chosen_.size(); ++i) {
      Candidate& candidate = report_.candidates[chosen_[i]];
      if (i == 0) candidate.verdict = VerdictCode::kChosen;
      report_.best[i].candidate = candidate;
    }
  }

  const PlannerInput& input_;
  const ClusterModel& cluster_;
  const std::vector<int32_t> ranks_;
  StageCutter cutter_;
  std::map<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>,
           std::shared_ptr<const PlanRings>>
      rings_;
  PlanReport report_;
  std::vector<std::pair<double, size_t>> order_;    // likely time, candidate
  std::vector<std::pair<double, size_t>> fastest_;  // simulated, sorted
  std::vector<size_t> chosen_;
};

}  // namespace

absl::StatusOr<PlanReport> MakePlan(const PlannerInput& input) {
  RETURN_IF_ERROR(CheckModelShape(input.model));
  if (input.global_batch < 1) {
    return InvalidArgument("global batch: found {}, expected at least 1",
                           input.global_batch);
  }
  if (input.options.best < 1 || input.options.placed < 1) {
    return InvalidArgument(
        "planner: found {} best and {} placed plans, expected at least 1",
        input.options.best, input.options.placed);
  }
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  return Search(input, cluster).Run();
}

absl::StatusOr<Plan> PlanOfCandidate(const ModelShape& model,
                                     const ClusterModel& cluster,
                                     int64_t global_batch,
                                     const RuntimeTraits& traits,
                                     const Candidate& candidate) {
  ASSIGN_OR_RETURN(Plan plan,
                   UncutPlan(model, cluster, global_batch, candidate));
  const PlanCoster coster(model, cluster, plan, traits);
  StageCutter cutter;
  RETURN_IF_ERROR(cutter.Cut(coster, plan));
  return plan;
}

}  // namespace trireme
