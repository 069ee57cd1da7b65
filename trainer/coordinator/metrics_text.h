// A job's state as Prometheus reads it.

#ifndef TRIREME_TRAINER_COORDINATOR_METRICS_TEXT_H_
#define TRIREME_TRAINER_COORDINATOR_METRICS_TEXT_H_

#include <string>

#include "trainer/coordinator/coordinator.pb.h"

namespace trireme {

// The text exposition format, version 0.0.4: gauges named trireme_..., of the
// last step and of each rank.
std::string MetricsText(const JobStatus& status);

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_METRICS_TEXT_H_
