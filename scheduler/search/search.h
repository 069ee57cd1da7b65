// The planner: which plan trains a model fastest on a cluster, and why not the
// others.
//
//   1. Enumerate (candidates.h). What cannot be divided is refused at once.
//   2. Cost the others: a bound on its memory refuses what cannot fit, a bound
//      on its step orders the rest. Those that divide microbatches least come
//      first; what finer divisions can gain at best (division_bounds.h) leaves
//      most of them out, and what computes again has its turn where nothing
//      fits without.
//   3. Simulate in that order, and stop where the bound says that nothing
//      better can follow, or after a fixed amount of simulation.
//   4. Place the ranks of the best plans, and of those that may still pass
//      them, on devices, cut the stages again where devices are unlike
//      (refinement.h), and rank.
//   5. On small clusters, hold every candidate on every placement against the
//      best (exact_search.h).
//
// Pure and deterministic: the result depends on the input alone.

#ifndef TRIREME_SCHEDULER_SEARCH_SEARCH_H_
#define TRIREME_SCHEDULER_SEARCH_SEARCH_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/placement/placement.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/exact_search.h"
#include "scheduler/search/refinement.h"

namespace trireme {

// How far a search is, in candidates.
struct SearchProgress {
  std::string_view phase;
  int64_t done = 0;
  int64_t total = 0;
};

struct PlannerOptions {
  CandidateSpace space;
  PlacementOptions placement;
  // Plans in the report.
  int32_t best = 5;
  // Of those simulated, how many are placed; each may come out ahead.
  int32_t placed = 8;
  // Budget of simulation, in instructions.
  int64_t max_instructions = 12'000'000;
  // And of simulation under other placements (PlacedSteps::work).
  int64_t max_placing_work = 6'000'000;
  ExactSearchOptions exact;
  // Plans whose steps take longer are of no interest.
  double step_to_beat_s = std::numeric_limits<double>::infinity();
  // Called for each candidate of each phase; null: nobody asks.
  std::function<void(const SearchProgress&)> progress;
};

struct PlannerInput {
  ModelShape model;
  Cluster cluster;
  int64_t global_batch = 1;
  PlannerOptions options;
};

struct PlanReport {
  // The input's, resolved.
  ClusterModel cluster;
  // Fastest first, at least one.
  std::vector<RankedPlan> best;
  // All candidates, each with its verdict.
  std::vector<Candidate> candidates;
  int64_t simulated = 0;
  // No candidate on any placement is faster than the first by more than
  // ExactSearchOptions::tolerance: so small is the cluster.
  bool complete = false;
};

// Errors: InvalidArgument for an input that makes no sense; ResourceExhausted
// where no candidate fits the devices' memory, with the one that comes nearest;
// NotFound where none can be divided as the devices are, or beats the given
// step.
absl::StatusOr<PlanReport> MakePlan(const PlannerInput& input);

// One line for each candidate: all fields and the verdict's code, excess bytes
// and seconds, with a line of names first. The best are as they were refined.
std::string VerdictsCsv(const PlanReport& report);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_SEARCH_H_
