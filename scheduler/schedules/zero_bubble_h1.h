// ZB-H1 (Qi et al., "Zero bubble pipeline parallelism"): a backward in two
// halves, of which only the input's is on the way of other stages; the weights'
// fills the bubble. With F, B and W the seconds of a rank's whole share of one
// microbatch, the bubble is (p − 1)·max(F, F + B − W), in the memory of 1F1B:
// p − r activations on rank r.

#ifndef TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_H1_H_
#define TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_H1_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

ComputeOrder ZeroBubbleH1Order(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_ZERO_BUBBLE_H1_H_
