// What `trireme plan --why` asks, in words.

#ifndef TRIREME_SCHEDULER_EXPLAIN_QUERY_H_
#define TRIREME_SCHEDULER_EXPLAIN_QUERY_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/explain/verdicts.h"

namespace trireme {

// "tp=4,pp=2,schedule=zb_v": each field at most once, names of schedules,
// shardings and recomputations in either case. InvalidArgument with what the
// field can be.
absl::StatusOr<WhyQuery> ParseWhyQuery(std::string_view text);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_QUERY_H_
