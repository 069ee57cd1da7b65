// What the parts of an answer to "why not" have in common, beside search.h.

#ifndef TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_
#define TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/search.h"

namespace trireme {

// With its ranks in order.
absl::StatusOr<Estimate> EstimateOf(const PlannerInput& input,
                                    const PlanReport& report,
                                    const Candidate& candidate);

// Of a candidate out of memory: by how much, the largest item, and the nearest
// change of one field that makes it fit.
std::string MemoryText(const PlannerInput& input, const PlanReport& report,
                       const Candidate& candidate);
// Of one that a host cannot hold.
std::string HostMemoryText(const PlannerInput& input, const PlanReport& report,
                           const Candidate& candidate);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_
