// Paths and orders of an instance: greedy list scheduling (search_start.cc),
// then large-neighbourhood search by simulated annealing. A step
// (search_moves.cc) takes a few microbatches out and puts them back on other
// paths, exchanges nodes between paths or changes which of two tasks a node
// prefers; each is timed by simulating the whole step (tens of microseconds for
// 30 microbatches).
//
// Deterministic for a seed: the effort is counted in simulations.

#ifndef TRIREME_SCHEDULER_PARTIAL_SEARCH_H_
#define TRIREME_SCHEDULER_PARTIAL_SEARCH_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"

namespace trireme {

struct SkipSearchOptions {
  uint64_t seed = 1;
  // Simulations in all. These take about 3 s on one core for the published
  // instance of 20 nodes and 30 microbatches.
  int64_t evaluations = 150'000;
  // Annealing runs that share them, each from its own greedy start.
  int32_t restarts = 2;
};

struct SkipSearchResult {
  SkipSchedule schedule;
  double makespan_s = 0;
  // Of the greedy start of the first run.
  double greedy_makespan_s = 0;
  // SkipLowerBound; the search ends where it is met.
  double lower_bound_s = 0;
  // No schedule is faster.
  bool proven = false;

  // By how much at most the best schedule is faster, as a part of the bound.
  double gap() const { return makespan_s / lower_bound_s - 1; }
};

// NotFound if no paths that keep the constraints were found, InvalidArgument
// for an instance that is not valid or cannot be balanced. Pure; any thread.
absl::StatusOr<SkipSearchResult> SearchSkipSchedule(
    const SkipInstance& instance, const SkipSearchOptions& options);

// No schedule of the instance can be faster: for each data node its own
// forwards, losses and backwards in the best order, with its slots and rests,
// each microbatch being away between them for as long as on the fastest paths
// alone. At least the heaviest data node's load and the longest of the data
// nodes' fastest solo paths, and much more where slots are few.
double SkipLowerBound(const SkipInstance& instance);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_SEARCH_H_
