// Why a candidate is not the plan, in words.

#ifndef TRIREME_SCHEDULER_EXPLAIN_VERDICTS_H_
#define TRIREME_SCHEDULER_EXPLAIN_VERDICTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/explain/query.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/search.h"

namespace trireme {

// The verdict in words. Of a plan out of memory also its largest item and the
// nearest change of one field that makes it fit.
std::string VerdictText(const PlannerInput& input, const PlanReport& report,
                        const Candidate& candidate);

// Which of two candidates comes nearer to being the plan, and so says more.
bool Nearer(const Candidate& a, const Candidate& b);

// Why not those: the verdict of the fastest of them, and how many there are of
// each verdict. Where none was considered, the answer is about the plan that
// has the given fields and the chosen plan's others, costed and simulated with
// its ranks in order.
absl::StatusOr<std::string> Why(const PlannerInput& input,
                                const PlanReport& report,
                                const WhyQuery& query);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_VERDICTS_H_
