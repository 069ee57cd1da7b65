// A job's state for people, in lines of at most 80 columns.

#ifndef TRIREME_TRAINER_COORDINATOR_STATUS_TEXT_H_
#define TRIREME_TRAINER_COORDINATOR_STATUS_TEXT_H_

#include <optional>
#include <string>

#include "trainer/coordinator/coordinator.pb.h"

namespace trireme {

// How far it is and how long it will take, loss, speed, where the time goes,
// memory, the most loaded expert, the ranks that compute longest and those that
// are silent. `peak_flops`: one rank's, for the model FLOPs utilization (MFU);
// without it what all ranks report of their devices, if they do.
std::string StatusText(const JobStatus& status,
                       std::optional<double> peak_flops = std::nullopt);

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_STATUS_TEXT_H_
