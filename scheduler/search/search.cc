#include "scheduler/search/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/likely_seconds.h"
#include "scheduler/search/lower_bounds.h"
#include "scheduler/search/memory_fit.h"
#include "scheduler/search/nothing_fits.h"
#include "scheduler/search/refinement.h"
#include "scheduler/search/resident_units.h"

namespace trireme {
namespace {

// Plans on which is tried what is not enumerated.
constexpr size_t kImproved = 3;

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
      : input_(input),
        cluster_(cluster),
        best_case_(BestCase(cluster)),
        nodes_alike_(std::all_of(cluster.nodes.begin(), cluster.nodes.end(),
                                 [&](const ClusterNode& node) {
                                   const ClusterNode& first =
                                       cluster.nodes.front();
                                   return node.device == first.device &&
                                          node.link == first.link &&
                                          node.slowdown == first.slowdown;
                                 })),
        ranks_(ChainedRanks(cluster)),
        refinement_(input.model, cluster, input.global_batch) {}

  absl::StatusOr<PlanReport> Run() {
    CandidateSpace space = input_.options.space;
    RETURN_IF_ERROR(Consider(space));
    if (report_.best.empty() &&
        space.offload == OffloadSearch::kWhereNothingFits) {
      space.offload = OffloadSearch::kOnly;
      RETURN_IF_ERROR(Consider(space));
    }
    if (report_.best.empty()) {
      return NothingFits(input_, cluster_, report_.candidates);
    }
    KeepBest();
    GiveVerdicts();
    return std::move(report_);
  }

 private:
  // Those of `space`, beside those before, of which none fits.
  absl::Status Consider(const CandidateSpace& space) {
    const size_t first = report_.candidates.size();
    for (const Candidate& candidate : EnumerateCandidates(
             input_.model, cluster_, input_.global_batch, space)) {
      // What no plan can have was refused the first time.
      const bool known = first > 0 &&
                         candidate.verdict != VerdictCode::kPending &&
                         candidate.verdict != VerdictCode::kUnsupported;
      if (!known) report_.candidates.push_back(candidate);
    }
    RETURN_IF_ERROR(Bound(first));
    RETURN_IF_ERROR(SimulatePromising());
    RETURN_IF_ERROR(PlaceBest());
    return SearchExactly();
  }

  void Report(std::string_view phase, size_t done, size_t total) const {
    if (!input_.options.progress) return;
    input_.options.progress({.phase = phase,
                             .done = static_cast<int64_t>(done),
                             .total = static_cast<int64_t>(total)});
  }

  absl::StatusOr<Plan> UncutPlanOf(const Candidate& candidate) const {
    ASSIGN_OR_RETURN(Plan plan, UncutPlan(input_.model, cluster_,
                                          input_.global_batch, candidate));
    PlaceAt(ranks_, plan);
    return plan;
  }

  absl::StatusOr<Plan> PlanOf(size_t index) {
    const Candidate& candidate = report_.candidates[index];
    ASSIGN_OR_RETURN(Plan plan, UncutPlanOf(candidate));
    const auto fitted = fitted_.find(index);
    if (fitted != fitted_.end()) {
      *plan.mutable_placement() = fitted->second.placement();
      *plan.mutable_stages() = fitted->second.stages();
      return plan;
    }
    const PlanCoster coster = CosterOf(plan);
    RETURN_IF_ERROR(cutter_.Cut(coster, plan));
    return plan;
  }

  // With the rings of its grid, which many candidates share. `plan` must be
  // placed at ranks_.
  PlanCoster CosterOf(const Plan& plan, bool best_case = false) {
    const Plan::Grid& grid = plan.grid();
    std::shared_ptr<const PlanRings>& rings =
        rings_[std::tuple(best_case, grid.tp(), grid.cp(), grid.dp(), grid.pp(),
                          grid.ep(), plan.shard_group())];
    PlanCoster coster(input_.model, best_case ? best_case_ : cluster_, plan,
                      rings);
    rings = coster.rings();
    return coster;
  }

  absl::Status Bound(size_t first) {
    order_.clear();
    bounds_.resize(report_.candidates.size(), 0.0);
    for (size_t i = first; i < report_.candidates.size(); ++i) {
      Report("costing candidates", i, report_.candidates.size());
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
      PlanCosts costs = coster.CostsOf(0);
      const std::vector<int32_t>& in_flight = in_flight_.Of(plan);
      if (candidate.offload) {
        candidate.resident_units = ChooseResidentUnits(costs, in_flight);
        plan.mutable_offload()->set_resident_units(
            static_cast<uint32_t>(candidate.resident_units));
        const HostOverflow host =
            WorstHostOverflow(cluster_, plan, costs.host_bytes);
        if (host.bytes > 0) {
          candidate.verdict = VerdictCode::kHostOutOfMemory;
          candidate.over_bytes = host.bytes;
          continue;
        }
      }
      Overflow overflow = LeastOverflow(plan, costs, in_flight);
      if (overflow.bytes > 0) {
        const MemoryFit fit(input_.model, cluster_, in_flight);
        ASSIGN_OR_RETURN(const bool fits,
                         fit.Fit(ranks_, cutter_, plan, costs));
        if (fits) {
          fitted_.emplace(i, plan);
          overflow = {};
        }
      }
      if (overflow.bytes > 0) {
        candidate.verdict = VerdictCode::kOutOfMemory;
        candidate.over_bytes = overflow.bytes;
        candidate.pp_rank = overflow.pp;
        continue;
      }
      order_.emplace_back(LikelySeconds(plan, costs), i);
      ASSIGN_OR_RETURN(candidate.step_s, BoundOf(candidate, plan, costs));
      bounds_[i] = candidate.step_s;
    }
    std::sort(order_.begin(), order_.end());
    return absl::OkStatus();
  }

  // No placement of the candidate, nor the cut that goes with it, has a faster
  // step. `costs`: where it is now.
  absl::StatusOr<double> BoundOf(const Candidate& candidate, Plan& plan,
                                 PlanCosts& costs) {
    const bool units_in_nodes =
        std::all_of(cluster_.nodes.begin(), cluster_.nodes.end(),
                    [&](const ClusterNode& node) {
                      return node.count % (candidate.tp * candidate.cp) == 0;
                    });
    if (!nodes_alike_ || !units_in_nodes) {
      const PlanCoster fastest = CosterOf(plan, /*best_case=*/true);
      RETURN_IF_ERROR(cutter_.Cut(fastest, plan));
      costs = fastest.CostsOf(0);
      return StepLowerBound(plan, costs);
    }
    // What stages do is the same everywhere, but for sharded gradients and
    // parameters, which a better placement may hide.
    for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
      for (size_t i = 0; i < costs.cost.chunks[pp].size(); ++i) {
        ChunkCost& chunk = costs.cost.chunks[pp][i];
        const double dp_s = costs.parts[pp][i].dp_s;
        const double share = 1 - dp_s / (chunk.forward_s + chunk.backward_s);
        chunk.forward_s *= share;
        chunk.backward_s *= share;
      }
    }
    return StepLowerBound(plan, costs);
  }

  absl::Status SimulatePromising() {
    int64_t instructions = 0;
    size_t looked_at = 0;
    for (const auto& [likely, index] : order_) {
      Report("simulating candidates", looked_at++, order_.size());
      Candidate& candidate = report_.candidates[index];
      if (!input_.options.exhaustive) {
        if (instructions > input_.options.max_instructions) break;
        if (static_cast<int32_t>(fastest_.size()) >= input_.options.placed &&
            IsFaster(WorstKept(), candidate.step_s)) {
          continue;
        }
      }
      ASSIGN_OR_RETURN(const Estimate estimate, FittedEstimate(index));
      instructions += InstructionsOf(estimate.program);
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
      SortBySpeed(fastest_);
    }
    return absl::OkStatus();
  }

  // With fewer units on the device where what the bound leaves out (messages,
  // and when which unit is there) is too much.
  absl::StatusOr<Estimate> FittedEstimate(size_t index) {
    Candidate& candidate = report_.candidates[index];
    while (true) {
      ASSIGN_OR_RETURN(const Plan plan, PlanOf(index));
      ASSIGN_OR_RETURN(Estimate estimate,
                       EstimatePlan(input_.model, cluster_, plan));
      if (candidate.resident_units <= 1 || WorstOverflow(estimate).bytes <= 0) {
        return estimate;
      }
      --candidate.resident_units;
    }
  }

  // Fastest first, of steps and candidates. Where only rounding tells steps
  // apart, larger microbatches come first: the fewer kernels do the same work.
  void SortBySpeed(std::vector<std::pair<double, size_t>>& steps) const {
    std::sort(steps.begin(), steps.end());
    const auto size_of = [&](const std::pair<double, size_t>& step) {
      return report_.candidates[step.second].microbatch_size;
    };
    auto first = steps.begin();
    while (first != steps.end()) {
      const double least = first->first;
      const auto last = std::find_if(
          first, steps.end(),
          [least](const auto& step) { return IsFaster(least, step.first); });
      std::stable_sort(first, last, [&](const auto& a, const auto& b) {
        return size_of(a) > size_of(b);
      });
      first = last;
    }
  }

  double WorstKept() const { return fastest_[input_.options.placed - 1].first; }

  absl::Status PlaceBest() {
    const auto placed = static_cast<size_t>(input_.options.placed);
    double best = std::numeric_limits<double>::infinity();
    placing_work_ = input_.options.max_placing_work;
    for (size_t i = 0; i < fastest_.size(); ++i) {
      Report("placing plans", i, std::max(placed, report_.best.size()));
      // Beyond the promised number only what may still come out ahead.
      const size_t index = fastest_[i].second;
      const bool promised =
          i < placed || i < static_cast<size_t>(input_.options.best);
      if (!promised && (cluster_.num_nodes() == 1 || placing_work_ <= 0)) break;
      if (!promised && bounds_[index] >= best) continue;
      Candidate& candidate = report_.candidates[index];
      RankedPlan ranked;
      ASSIGN_OR_RETURN(ranked.plan, PlanOf(index));
      ASSIGN_OR_RETURN(ranked.estimate,
                       EstimatePlan(input_.model, cluster_, ranked.plan));
      if (cluster_.num_nodes() > 1 && (i < placed || !promised)) {
        const auto shares = static_cast<int64_t>(i < placed ? placed - i : 1);
        ASSIGN_OR_RETURN(const int64_t work,
                         refinement_.Place(input_.options.placement,
                                           placing_work_ / shares, ranked));
        placing_work_ -= work;
      }
      best = std::min(best, ranked.estimate.step_s);
      candidate.step_s = ranked.estimate.step_s;
      ranked.candidate = candidate;
      *ranked.plan.mutable_predicted() =
          PredictionOf(ranked.plan, ranked.estimate);
      report_.best.push_back(std::move(ranked));
      chosen_.push_back(index);
    }
    Rank();
    for (size_t i = 0; i < report_.best.size() && i < kImproved; ++i) {
      RETURN_IF_ERROR(refinement_.Improve(report_.best[i]));
      report_.candidates[chosen_[i]].step_s = report_.best[i].estimate.step_s;
    }
    Rank();
    return absl::OkStatus();
  }

  void KeepBest() {
    const auto best = static_cast<size_t>(input_.options.best);
    if (report_.best.size() <= best) return;
    report_.best.erase(report_.best.begin() + best, report_.best.end());
    chosen_.resize(best);
  }

  // On small clusters: takes what is faster still.
  absl::Status SearchExactly() {
    if (cluster_.num_ranks() > input_.options.exact.max_devices) {
      return absl::OkStatus();
    }
    ExactSearch search(input_.model, cluster_, input_.global_batch,
                       input_.options.exact);
    const double step_s = report_.best.empty()
                              ? std::numeric_limits<double>::infinity()
                              : report_.best.front().estimate.step_s;
    Report("searching exactly", 0, report_.candidates.size());
    ASSIGN_OR_RETURN(ExactSearchResult found,
                     search.Run(report_.candidates, step_s));
    report_.complete = found.complete;
    if (!found.plan.has_value()) return absl::OkStatus();
    Candidate& candidate = report_.candidates[found.candidate];
    candidate.simulated = true;
    // With its ranks in order it may not have fitted.
    candidate.verdict = VerdictCode::kPending;
    candidate.over_bytes = 0;
    candidate.pp_rank = -1;
    candidate.step_s = found.estimate.step_s;
    RankedPlan ranked = {candidate, *std::move(found.plan),
                         std::move(found.estimate)};
    *ranked.plan.mutable_predicted() =
        PredictionOf(ranked.plan, ranked.estimate);
    RETURN_IF_ERROR(refinement_.Improve(ranked));
    candidate.step_s = ranked.estimate.step_s;
    const auto before =
        std::find(chosen_.begin(), chosen_.end(), found.candidate);
    if (before == chosen_.end()) {
      report_.best.push_back(std::move(ranked));
      chosen_.push_back(found.candidate);
    } else {
      report_.best[before - chosen_.begin()] = std::move(ranked);
    }
    Rank();
    return absl::OkStatus();
  }

  void Rank() {
    std::vector<std::pair<double, size_t>> ranking;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      ranking.emplace_back(report_.best[i].estimate.step_s, chosen_[i]);
    }
    SortBySpeed(ranking);
    std::vector<RankedPlan> best;
    std::vector<size_t> chosen;
    for (const auto& [step_s, index] : ranking) {
      const auto at = std::find(chosen_.begin(), chosen_.end(), index);
      best.push_back(std::move(report_.best[at - chosen_.begin()]));
      chosen.push_back(index);
    }
    report_.best = std::move(best);
    chosen_ = std::move(chosen);
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
      report_.best[i].candidate.verdict = candidate.verdict;
    }
  }

  const PlannerInput& input_;
  const ClusterModel& cluster_;
  const ClusterModel best_case_;
  const bool nodes_alike_;  // but for the links between them
  const std::vector<int32_t> ranks_;
  StageCutter cutter_;
  InFlightCounts in_flight_;
  PlanRefinement refinement_;
  std::map<std::tuple<bool, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                      uint32_t>,
           std::shared_ptr<const PlanRings>>
      rings_;
  std::vector<double> bounds_;  // of each candidate's step
  // Of candidates that do not fit with their ranks in order and cut by time:
  // plans that do.
  std::map<size_t, Plan> fitted_;
  PlanReport report_;
  std::vector<std::pair<double, size_t>> order_;    // likely time, candidate
  std::vector<std::pair<double, size_t>> fastest_;  // simulated, sorted
  std::vector<size_t> chosen_;
  int64_t placing_work_ = 0;  // left
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

}  // namespace trireme
