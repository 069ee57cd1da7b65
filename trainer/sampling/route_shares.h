// How evenly the experts of a run were used, beside what the run draws.

#ifndef TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_
#define TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_

#include <cstdint>
#include <string>

namespace trireme {

// A line for people: of the run's last `steps` steps the smallest and the
// largest share of its layer's routes that an expert had in one of them. Empty
// of a run without experts or without metrics; of one whose metrics cannot be
// read it says why, as what stands beside it is not to be lost with them.
std::string RouteSharesText(const std::string& run, int64_t steps = 100);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_ROUTE_SHARES_H_
