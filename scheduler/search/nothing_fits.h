// What is said where no candidate can be the plan.

#ifndef TRIREME_SCHEDULER_SEARCH_NOTHING_FITS_H_
#define TRIREME_SCHEDULER_SEARCH_NOTHING_FITS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/search.h"

namespace trireme {

// ResourceExhausted with the candidate that comes nearest to fitting, on its
// devices and on its hosts; NotFound where none can be divided as the devices
// are.
absl::Status NothingFits(const PlannerInput& input, const ClusterModel& cluster,
                         const std::vector<Candidate>& candidates);

// Of a candidate whose hosts' memory is too small: why the optimizer's states
// and all blocks but one do not lie on a drive instead, to be added to a
// message; empty where that fits.
std::string WhyNotOnDrive(const PlannerInput& input,
                          const ClusterModel& cluster, Candidate candidate);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_NOTHING_FITS_H_
