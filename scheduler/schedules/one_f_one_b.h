// 1F1B without interleaving (PipeDream-flush; Narayanan et al., SC'21, section
// 2.2): rank r of p warms up with min(m, p - 1 - r) forwards, then alternates
// one forward and one backward, then drains. With stages of equal time
// T = forward + backward each rank idles (p - 1) T a step; rank r holds
// min(m, p - r) activations.

#ifndef TRIREME_SCHEDULER_SCHEDULES_ONE_F_ONE_B_H_
#define TRIREME_SCHEDULER_SCHEDULES_ONE_F_ONE_B_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

ComputeOrder OneFOneBOrder(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_ONE_F_ONE_B_H_
