// The planner: which plan trains a model fastest on a cluster, and why not the
// others.
//
//   1. Enumerate (candidates.h). What cannot be divided is refused at once.
//   2. Cost each of the others: a bound on its memory refuses what cannot fit,
//      a bound on its step orders the rest.
//   3. Simulate in that order, and stop where the bound says that nothing
//      better can follow, or after a fixed amount of simulation.
//   4. Place the ranks of the best plans, and of those that may still pass
//      them, on devices, cut the stages again where devices are unlike
//      (plan_refinement.h), and rank.
//   5. On small clusters, hold every candidate on every placement against the
//      best (exact_search.h).
//
// Pure and deterministic: the result depends on the input alone.

#ifndef TRIREME_SCHEDULER_PLANNER_SEARCH_H_
#define TRIREME_SCHEDULER_PLANNER_SEARCH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster.pb.h"
#include "scheduler/plan.pb.h"
#include "scheduler/planner/candidates.h"
#include "scheduler/planner/estimate.h"
#include "scheduler/planner/exact_search.h"
#include "scheduler/planner/placement.h"
#include "scheduler/planner/plan_refinement.h"

namespace trireme {

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
  // Simulate every candidate that may fit, whatever the bounds say.
  bool exhaustive = false;
};

struct PlannerInput {
  ModelShape model;
  Cluster cluster;
  int64_t global_batch = 1;
  PlannerOptions options;
};

struct PlanReport {
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
// NotFound where none can be divided as the devices are.
absl::StatusOr<PlanReport> MakePlan(const PlannerInput& input);

// The verdict in words. Of a plan out of memory also its largest item and the
// nearest change of one field that makes it fit.
std::string VerdictText(const PlannerInput& input, const PlanReport& report,
                        const Candidate& candidate);

// Which candidates a question is about; fields left out match all.
struct WhyQuery {
  std::optional<int32_t> tp, cp, ulysses, pp, dp, chunks, microbatch_size;
  std::optional<bool> sequence_parallel;
  // What the planner does not look for; answered with the reason.
  std::optional<int32_t> ep;
  std::optional<bool> offload;
  std::optional<Plan::Schedule> schedule;
  std::optional<Plan::Sharding> sharding;
  std::optional<Plan::Recompute> recompute;
};
// Why not those: the verdict of the fastest of them, and how many there are of
// each verdict. Where none was considered, the answer is about the plan that
// has the given fields and the chosen plan's others, costed and simulated with
// its ranks in order.
absl::StatusOr<std::string> Why(const PlannerInput& input,
                                const PlanReport& report,
                                const WhyQuery& query);

// How much a link matters to a plan.
struct LinkSensitivity {
  // A card that all of a node's devices share, to every other node.
  static constexpr int32_t kAllNodes = -1;
  // Copies both ways between a node's devices and its host.
  static constexpr int32_t kHost = -2;

  int32_t from = 0;  // nodes; equal: the links inside
  int32_t to = 0;
  // Relative growth of the step where the link has half its rate.
  double growth = 0;
};
// Of every link between and inside nodes that the plan uses, of the shared
// cards and, with offload, of copies to and from hosts, largest first; those
// without effect are left out.
absl::StatusOr<std::vector<LinkSensitivity>> Sensitivities(
    const PlannerInput& input, const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLANNER_SEARCH_H_
