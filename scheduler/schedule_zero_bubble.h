// Zero-bubble schedules (Qi et al., "Zero bubble pipeline parallelism" and
// "Pipeline parallelism with controllable memory"): a backward in two halves,
// of which only the input's is on the way of other stages; the weights' fills
// the bubble. F, B and W: seconds of a rank's whole share of one microbatch.

#ifndef TRIREME_SCHEDULER_SCHEDULE_ZERO_BUBBLE_H_
#define TRIREME_SCHEDULER_SCHEDULE_ZERO_BUBBLE_H_

#include <cstdint>

#include "scheduler/program_builder.h"

namespace trireme {

// ZB-H1: the memory of 1F1B, p − r activations on rank r; bubble
// (p − 1)·max(F, F + B − W).
ComputeOrder ZeroBubbleH1Order(int32_t num_ranks, int32_t microbatches);

// ZB-V: two chunks per rank, stages r (chunk 0) and 2p − 1 − r (chunk 1); p
// microbatches' activations on every rank; bubble about (p − 1)·max(F, B)/2.
ComputeOrder ZeroBubbleVOrder(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULE_ZERO_BUBBLE_H_
