// How evenly the experts of a run were used, beside what the run draws.

#ifndef TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_
#define TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace trireme {

// A line for people: of the run's last `steps` steps the smallest and the
// largest share of its layer's routes that an expert had in one of them. Empty
// of a run without experts or without metrics. Errors: metrics that cannot be
// read.
absl::StatusOr<std::string> RouteSharesText(const std::string& run,
                                            int64_t steps = 100);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_
