#include "scheduler/search/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/program/memory.h"
#include "scheduler/search/candidate_costing.h"
#include "scheduler/search/nothing_fits.h"
#include "scheduler/search/refinement.h"

namespace trireme {
namespace {

// Plans on which is tried what is not enumerated.
constexpr size_t kImproved = 3;

// Whether `a` is `b` but for what it computes again beyond that.
bool ComputesMoreAgain(const Candidate& a, Candidate b) {
  if (a.recompute <= b.recompute) return false;
  b.recompute = a.recompute;
  return a == b;
}

class Search {
 public:
  Search(const PlannerInput& input, const ClusterModel& cluster)
      : input_(input),
        cluster_(cluster),
        costing_(input.model, cluster, input.global_batch),
        refinement_(input.model, cluster, input.global_batch) {}

  absl::StatusOr<PlanReport> Run() {
    CandidateSpace space = input_.options.space;
    RETURN_IF_ERROR(Consider(space));
    if (report_.best.empty() &&
        space.offload == OffloadSearch::kWhereNothingFits) {
      space.offload = OffloadSearch::kOnly;
      RETURN_IF_ERROR(Consider(space));
    }
    if (std::isfinite(input_.options.step_to_beat_s) &&
        (report_.best.empty() || report_.best.front().estimate.step_s >=
                                     input_.options.step_to_beat_s)) {
      return absl::NotFoundError("no plan beats the given step");
    }
    if (report_.best.empty()) {
      return NothingFits(input_, cluster_, report_.candidates);
    }
    KeepBest();
    GiveVerdicts();
    report_.cluster = cluster_;
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
    JudgeFamilies();
    RETURN_IF_ERROR(PlaceBest());
    return SearchExactly();
  }

  void Report(std::string_view phase, size_t done, size_t total) const {
    if (!input_.options.progress) return;
    input_.options.progress({.phase = phase,
                             .done = static_cast<int64_t>(done),
                             .total = static_cast<int64_t>(total)});
  }

  // Groups the candidates from `first` on into families, and those by how many
  // ranks share a microbatch.
  std::map<int64_t, std::vector<size_t>> Families(size_t first) {
    // Where memory is alike, computing less again is always faster, and what
    // fits at one place fits at any.
    const ClusterDevice& device = cluster_.DeviceOfNode(0);
    const bool memory_alike =
        std::all_of(cluster_.nodes.begin(), cluster_.nodes.end(),
                    [&](const ClusterNode& node) {
                      return cluster_.devices[node.device].memory_bytes ==
                             device.memory_bytes;
                    });
    const bool ordered = memory_alike && (costing_.nodes_alike() ||
                                          cluster_.num_ranks() >
                                              input_.options.exact.max_devices);
    std::map<int64_t, std::vector<size_t>> by_ranks;
    for (size_t i = first; i < report_.candidates.size(); ++i) {
      const Candidate& candidate = report_.candidates[i];
      if (candidate.verdict != VerdictCode::kPending) continue;
      if (ordered && i > first && !candidate.offload &&
          ComputesMoreAgain(candidate, report_.candidates[i - 1])) {
        after_[i - 1] = i;
        continue;
      }
      by_ranks[int64_t{candidate.tp} * candidate.cp].push_back(i);
    }
    return by_ranks;
  }

  // Costs candidates, those that divide microbatches least first: the best of
  // them show which finer divisions need not be looked at.
  absl::Status Bound(size_t first) {
    order_.clear();
    bounds_.resize(report_.candidates.size(), 0.0);
    after_.assign(report_.candidates.size(), 0);
    size_t looked_at = first;
    for (const auto& [ranks, families] : Families(first)) {
      const size_t costed = order_.size();
      for (const size_t family : families) {
        Report("costing candidates", looked_at++, report_.candidates.size());
        RETURN_IF_ERROR(CostFamily(family));
      }
      std::vector<std::pair<double, size_t>> likeliest(
          order_.begin() + static_cast<ptrdiff_t>(costed), order_.end());
      std::sort(likeliest.begin(), likeliest.end());
      for (size_t i = 0; i < likeliest.size(); ++i) {
        const auto [likely_s, index] = likeliest[i];
        if (i >= static_cast<size_t>(input_.options.placed)) break;
        if (HasEnough() && IsFaster(WorstKept(), likely_s)) break;
        RETURN_IF_ERROR(Simulate(index));
      }
    }
    return absl::OkStatus();
  }

  // The first of a family that may fit; none where all are slower than enough
  // others.
  absl::Status CostFamily(size_t index) {
    while (true) {
      Candidate& candidate = report_.candidates[index];
      if (IsTooSlow(candidate)) {
        candidate.step_s = costing_.StepBound(candidate);
        candidate.verdict = VerdictCode::kDominated;
        return absl::OkStatus();
      }
      ASSIGN_OR_RETURN(const double likely_s, costing_.Cost(index, candidate));
      if (candidate.verdict == VerdictCode::kPending) {
        order_.emplace_back(likely_s, index);
        return absl::OkStatus();
      }
      if (after_[index] == 0) return absl::OkStatus();
      index = after_[index];
    }
  }

  bool IsTooSlow(const Candidate& candidate) const {
    const double bound_s = costing_.StepBound(candidate);
    return bound_s >= input_.options.step_to_beat_s ||
           (HasEnough() && IsFaster(WorstKept(), bound_s));
  }

  absl::Status SimulatePromising() {
    for (size_t next = 0; next < order_.size();) {
      // What does not fit when it is simulated adds others of its family.
      std::sort(order_.begin() + static_cast<ptrdiff_t>(next), order_.end());
      for (const size_t end = order_.size(); next < end; ++next) {
        Report("simulating candidates", next, order_.size());
        const Candidate& candidate = report_.candidates[order_[next].second];
        if (candidate.simulated) continue;
        if (instructions_ > input_.options.max_instructions) {
          return absl::OkStatus();
        }
        if (candidate.step_s >= input_.options.step_to_beat_s) continue;
        if (HasEnough() && IsFaster(WorstKept(), candidate.step_s)) continue;
        RETURN_IF_ERROR(Simulate(order_[next].second));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Simulate(size_t index) {
    Candidate& candidate = report_.candidates[index];
    // Its place in the order is by what is known before.
    bounds_[index] = candidate.step_s;
    ASSIGN_OR_RETURN(const Estimate estimate, FittedEstimate(index));
    instructions_ += InstructionsOf(estimate.program);
    ++report_.simulated;
    candidate.simulated = true;
    candidate.step_s = estimate.step_s;
    const Overflow overflow = WorstOverflow(estimate);
    if (overflow.bytes > 0) {
      candidate.verdict = VerdictCode::kOutOfMemory;
      candidate.over_bytes = overflow.bytes;
      candidate.pp_rank = overflow.pp;
      return after_[index] == 0 ? absl::OkStatus() : CostFamily(after_[index]);
    }
    if (estimate.host_overflow.bytes > 0) {
      candidate.verdict = VerdictCode::kHostOutOfMemory;
      candidate.over_bytes = estimate.host_overflow.bytes;
      return absl::OkStatus();
    }
    fastest_.emplace_back(candidate.step_s, index);
    SortBySpeed(fastest_);
    return absl::OkStatus();
  }

  // With fewer units on the device where what the bound leaves out (messages,
  // and when which unit is there) is too much, and then without the inputs of
  // blocks; where these are too much for a host, with more on its drive.
  absl::StatusOr<Estimate> FittedEstimate(size_t index) {
    Candidate& candidate = report_.candidates[index];
    std::optional<std::pair<Candidate, Estimate>> before_drive;
    while (true) {
      ASSIGN_OR_RETURN(const Plan plan, costing_.PlanOf(index, candidate));
      ASSIGN_OR_RETURN(Estimate estimate,
                       EstimatePlan(input_.model, cluster_, plan));
      if (before_drive.has_value() && estimate.drive_overflow.bytes > 0) {
        candidate = before_drive->first;
        return std::move(before_drive->second);
      }
      if (WorstOverflow(estimate).bytes > 0) {
        // With one unit no copy hides.
        const bool moves = MayMoveInputs(candidate);
        if (candidate.resident_units > (moves ? 2 : 1)) {
          --candidate.resident_units;
          continue;
        }
        if (moves) {
          candidate.activations = true;
          continue;
        }
      } else if (estimate.host_overflow.bytes > 0 && candidate.activations) {
        const auto moved = WithMoreOnDrive(estimate, candidate);
        if (moved.has_value()) {
          before_drive.emplace(candidate, std::move(estimate));
          candidate = *moved;
          continue;
        }
      }
      return estimate;
    }
  }

  // Optimizer states where they are not there, else the weights of more blocks;
  // nothing where there are no more.
  std::optional<Candidate> WithMoreOnDrive(const Estimate& estimate,
                                           Candidate candidate) const {
    if (DriveFolderOf(cluster_).empty()) return std::nullopt;
    if (!std::exchange(candidate.drive, true) && input_.model.trained_leaves) {
      return candidate;
    }
    const int64_t held = candidate.host_units > 0
                             ? candidate.host_units
                             : CeilDivide(input_.model.layers, candidate.pp);
    if (held == 1) return std::nullopt;
    int64_t block_bytes = 1;
    for (const RankMemory& rank : estimate.memory.ranks) {
      for (const ChunkMemory& chunk : rank.chunks) {
        for (const UnitMemory& unit : chunk.units) {
          block_bytes = std::max(block_bytes, unit.parameter_bytes);
        }
      }
    }
    // Each of the node's ranks leaves as many.
    const HostOverflow& over = estimate.host_overflow;
    const int64_t less =
        over.bytes / (block_bytes * cluster_.nodes[over.node].count);
    candidate.host_units = static_cast<int32_t>(
        std::max<int64_t>(1, held - std::max<int64_t>(1, less)));
    return candidate;
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

  // As many were simulated as are placed; the slowest of these.
  bool HasEnough() const {
    return fastest_.size() >= static_cast<size_t>(input_.options.placed);
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
      ASSIGN_OR_RETURN(ranked.plan, costing_.PlanOf(index, candidate));
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
      ranked.index = index;
      report_.best.push_back(std::move(ranked));
    }
    Rank();
    for (size_t i = 0; i < report_.best.size() && i < kImproved; ++i) {
      RankedPlan& ranked = report_.best[i];
      RETURN_IF_ERROR(refinement_.Improve(ranked));
      report_.candidates[ranked.index].step_s = ranked.estimate.step_s;
    }
    Rank();
    return absl::OkStatus();
  }

  // Their plans say what they are predicted to take.
  void KeepBest() {
    const auto best = static_cast<size_t>(input_.options.best);
    report_.best.resize(std::min(best, report_.best.size()));
    for (RankedPlan& ranked : report_.best) {
      *ranked.plan.mutable_predicted() =
          PredictionOf(ranked.plan, ranked.estimate);
    }
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
    RankedPlan ranked = {candidate, found.candidate, *std::move(found.plan),
                         std::move(found.estimate)};
    RETURN_IF_ERROR(refinement_.Improve(ranked));
    candidate.step_s = ranked.estimate.step_s;
    std::erase_if(report_.best, [&](const RankedPlan& before) {
      return before.index == found.candidate;
    });
    report_.best.push_back(std::move(ranked));
    Rank();
    return absl::OkStatus();
  }

  void Rank() {
    std::vector<std::pair<double, size_t>> ranking;
    for (const RankedPlan& ranked : report_.best) {
      ranking.emplace_back(ranked.estimate.step_s, ranked.index);
    }
    SortBySpeed(ranking);
    std::vector<RankedPlan> best;
    for (const auto& place : ranking) {
      best.push_back(std::move(*std::find_if(
          report_.best.begin(), report_.best.end(),
          [&](const RankedPlan& r) { return r.index == place.second; })));
    }
    report_.best = std::move(best);
  }

  // Who computes more again than one of its family that fits is slower.
  void JudgeFamilies() {
    for (size_t i = 0; i < after_.size(); ++i) {
      const Candidate& candidate = report_.candidates[i];
      if (after_[i] == 0 || candidate.step_s == 0) continue;
      Candidate& after = report_.candidates[after_[i]];
      if (candidate.verdict == VerdictCode::kOutOfMemory) continue;
      after.step_s = candidate.step_s;
      after.verdict = candidate.verdict == VerdictCode::kUnlikely
                          ? VerdictCode::kUnlikely
                          : VerdictCode::kDominated;
    }
  }

  void GiveVerdicts() {
    const double best = report_.best.front().estimate.step_s;
    for (Candidate& candidate : report_.candidates) {
      if (candidate.verdict != VerdictCode::kPending) continue;
      candidate.verdict = candidate.simulated || candidate.step_s >= best
                              ? VerdictCode::kDominated
                              : VerdictCode::kUnlikely;
    }
    report_.candidates[report_.best.front().index].verdict =
        VerdictCode::kChosen;
    for (RankedPlan& ranked : report_.best) {
      ranked.candidate.verdict = report_.candidates[ranked.index].verdict;
    }
    JudgeFamilies();
  }

  const PlannerInput& input_;
  const ClusterModel& cluster_;
  CandidateCosting costing_;
  PlanRefinement refinement_;
  std::vector<double> bounds_;  // of each candidate's step
  // Candidates that differ in what is computed again alone are a family, which
  // computes more and more: the next, for each member but the last.
  std::vector<size_t> after_;
  PlanReport report_;
  std::vector<std::pair<double, size_t>> order_;    // likely time, candidate
  std::vector<std::pair<double, size_t>> fastest_;  // simulated, sorted
  int64_t instructions_ = 0;                        // simulated
  int64_t placing_work_ = 0;                        // left
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

std::string VerdictsCsv(const PlanReport& report) {
  std::vector<Candidate> candidates = report.candidates;
  for (const RankedPlan& ranked : report.best) {
    candidates[ranked.index] = ranked.candidate;
  }
  std::string csv =
      "tp,cp,ulysses,dp,pp,ep,schedule,chunks,microbatch_group,"
      "microbatch_size,sharding,shard_group,sequence_parallel,recompute,"
      "recompute_blocks,expert_move,row_chunks,row_copies,node_ranks,"
      "resident_units,device_blocks,activations,drive,host_units,verdict,"
      "simulated,step_s,over_bytes\n";
  for (const Candidate& c : candidates) {
    csv += fmt::format(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},", c.tp, c.cp, c.ulysses,
        c.dp, c.pp, c.ep, Plan::Schedule_Name(c.schedule), c.chunks,
        c.microbatch_group, c.microbatch_size, Plan::Sharding_Name(c.sharding),
        c.shard_group, c.sequence_parallel, Plan::Recompute_Name(c.recompute));
    csv += fmt::format(
        "{},{},{},{},{},{},{},{},{},{},{},{},{:.6g},{}\n", c.recompute_blocks,
        c.expert_move, c.row_chunks, c.row_copies, c.node_ranks,
        c.offload ? std::to_string(c.resident_units) : "", c.device_blocks,
        c.activations, c.drive, c.host_units, VerdictCodeName(c.verdict),
        c.simulated, c.step_s, c.over_bytes);
  }
  return csv;
}

}  // namespace trireme
