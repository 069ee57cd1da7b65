// What `trireme plan` prints: the table of the best plans, where their time and
// memory go, and what became of all others.

#ifndef TRIREME_SCHEDULER_EXPLAIN_TABLES_H_
#define TRIREME_SCHEDULER_EXPLAIN_TABLES_H_

#include <string>
#include <vector>

#include "scheduler/explain/sensitivities.h"
#include "scheduler/search/search.h"

namespace trireme {

// One line per plan: step, samples/s, MFU, shares of the step by cause, memory
// of the fullest rank.
std::string PlanTable(const PlanReport& report);

// One line per pipeline rank: bytes by category, the device's limit, what is
// left.
std::string MemoryTable(const RankedPlan& plan);

// With offload: what stays on the devices, how much of the step they wait for
// copies and for the host, and what hosts hold; else empty.
std::string OffloadText(const PlannerInput& input, const RankedPlan& plan);

// How many candidates have which verdict, with one example in words each.
std::string VerdictSummary(const PlannerInput& input, const PlanReport& report);

// Links by what halving their rate would cost; at most `most`.
std::string SensitivityTable(const PlannerInput& input,
                             const std::vector<LinkSensitivity>& links,
                             size_t most = 10);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_TABLES_H_
