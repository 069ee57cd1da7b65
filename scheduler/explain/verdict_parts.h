// What the parts of an answer to "why not" have in common, beside search.h.

#ifndef TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_
#define TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/search.h"

namespace trireme {

// "512 MB", "1.5 GB".
std::string SizeText(int64_t bytes);

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

// The candidate that answers the question best; null: none matches.
const Candidate* NearestOf(const PlanReport& report, const WhyQuery& query);

// Why not such a plan with offload, which the search did not look for: the
// fastest of them, beside the chosen plan.
absl::StatusOr<std::string> WhyNotOffload(const PlannerInput& input,
                                          const PlanReport& report,
                                          const WhyQuery& query);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_VERDICT_PARTS_H_
