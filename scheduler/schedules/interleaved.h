// Interleaved 1F1B (Narayanan et al., "Efficient large-scale language model
// training on GPU clusters", section 2.2): v chunks per rank, chunk k of rank r
// is stage k·p + r.
//
// A rank's forwards go through groups of g >= p microbatches, inside a group
// chunk by chunk, inside a chunk microbatch by microbatch; its backwards
// likewise with the chunks in reverse. With T the time of a rank's whole share
// of one microbatch, the bubble is (p − 1)·T/v; rank r holds
// min(m·v, (v − 1)·g + 2(p − 1 − r) + 1) chunks' activations at most.

#ifndef TRIREME_SCHEDULER_SCHEDULES_INTERLEAVED_H_
#define TRIREME_SCHEDULER_SCHEDULES_INTERLEAVED_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

// microbatches % group is 0 or at least num_ranks; group >= num_ranks.
ComputeOrder InterleavedOrder(int32_t num_ranks, int32_t chunks,
                              int32_t microbatches, int32_t group);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_INTERLEAVED_H_
