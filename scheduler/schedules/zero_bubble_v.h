// ZB-V (Qi et al., "Pipeline parallelism with controllable memory"): backwards
// in two halves as in ZB-H1, and two chunks per rank, stages r (chunk 0) and
// 2p − 1 − r (chunk 1). With F, B and W the seconds of a rank's whole share of
// one microbatch, the bubble is about (p − 1)·max(F, B)/2; every rank holds p
// microbatches' activations.

#ifndef TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_V_H_
#define TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_V_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

ComputeOrder ZeroBubbleVOrder(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_V_H_
