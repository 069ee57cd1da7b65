// What `trireme plan --why` asks, in words.

#ifndef TRIREME_SCHEDULER_EXPLAIN_QUERY_H_
#define TRIREME_SCHEDULER_EXPLAIN_QUERY_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/candidates.h"

namespace trireme {

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

bool Matches(const Candidate& candidate, const WhyQuery& query);

// "tp=4,pp=2,schedule=zb_v": each field at most once, names of schedules,
// shardings and recomputations in either case. InvalidArgument with what the
// field can be.
absl::StatusOr<WhyQuery> ParseWhyQuery(std::string_view text);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_EXPLAIN_QUERY_H_
