// GPipe (Huang et al., 2019): every rank runs all its forwards, then all its
// backwards. With stages of equal time T = forward + backward, p ranks and m
// microbatches each rank idles (p - 1) T a step and holds m activations.
//
// Backwards run in the microbatches' order, not reversed as in the paper: the
// idle time is the same, and gradients accumulate in the order of every other
// schedule, so results are equal bit for bit.

#ifndef TRIREME_SCHEDULER_SCHEDULES_GPIPE_H_
#define TRIREME_SCHEDULER_SCHEDULES_GPIPE_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

ComputeOrder GPipeOrder(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_GPIPE_H_
