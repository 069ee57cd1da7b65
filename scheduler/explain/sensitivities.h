// What a plan's step depends on: links, and the order of sums.

#ifndef TRIREME_SCHEDULER_EXPLAIN_SENSITIVITIES_H_
#define TRIREME_SCHEDULER_EXPLAIN_SENSITIVITIES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/search.h"

namespace trireme {

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

// In words, what the step of a resolved plan in the order of RANKS, which takes
// `step_s`, would take with `reduce_order: FAST`. Empty where that saves less
// than a hundredth of it, or the cluster's collectives have that order anyway.
absl::StatusOr<std::string> ReduceOrderText(const PlannerInput& input,
                                            const Plan& plan, double step_s);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_SENSITIVITIES_H_
