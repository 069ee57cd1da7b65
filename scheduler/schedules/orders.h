// The orders in which the ranks of a pipeline compute, by schedule: what each
// costs and where it comes from. schedule.h has them in its table. Written for
// p ranks, m microbatches, and F, B and W the seconds of a rank's whole share
// of one microbatch: its forward, its gradients of inputs and of weights;
// T = F + B + W.
//
// In all, microbatches go backward in the order in which they go forward, so
// that gradients accumulate in one order and results are equal bit for bit.

#ifndef TRIREME_SCHEDULER_SCHEDULES_ORDERS_H_
#define TRIREME_SCHEDULER_SCHEDULES_ORDERS_H_

#include <cstdint>

#include "scheduler/program/program_builder.h"

namespace trireme {

// GPipe (Huang et al., 2019): every rank runs all its forwards, then all its
// backwards, not reversed as in the paper: the idle time is the same. Each rank
// idles (p - 1) T a step and holds m activations.
ComputeOrder GPipeOrder(int32_t num_ranks, int32_t microbatches);

// 1F1B without interleaving (PipeDream-flush; Narayanan et al., SC'21, section
// 2.2): rank r warms up with min(m, p - 1 - r) forwards, then alternates one
// forward and one backward, then drains. Each rank idles (p - 1) T a step; rank
// r holds min(m, p - r) activations.
ComputeOrder OneFOneBOrder(int32_t num_ranks, int32_t microbatches);

// Interleaved 1F1B (Narayanan et al., "Efficient large-scale language model
// training on GPU clusters", section 2.2): v chunks per rank, chunk k of rank r
// is stage k·p + r.
//
// A rank's forwards go through groups of g >= p microbatches, inside a group
// chunk by chunk, inside a chunk microbatch by microbatch; its backwards
// likewise with the chunks in reverse. The bubble is (p − 1)·T/v; rank r holds
// min(m·v, (v − 1)·g + 2(p − 1 − r) + 1) chunks' activations at most.
// microbatches % group is 0 or at least num_ranks; group >= num_ranks.
ComputeOrder InterleavedOrder(int32_t num_ranks, int32_t chunks,
                              int32_t microbatches, int32_t group);

// ZB-H1 (Qi et al., "Zero bubble pipeline parallelism"): a backward in two
// halves, of which only the input's is on the way of other stages; the weights'
// fills the bubble, which is (p − 1)·max(F, F + B − W), in the memory of 1F1B:
// p − r activations on rank r.
ComputeOrder ZeroBubbleH1Order(int32_t num_ranks, int32_t microbatches);

// ZB-V (Qi et al., "Pipeline parallelism with controllable memory"): backwards
// in two halves as in ZB-H1, and two chunks per rank, stages r (chunk 0) and
// 2p − 1 − r (chunk 1). The bubble is about (p − 1)·max(F, B)/2; every rank
// holds p microbatches' activations.
ComputeOrder ZeroBubbleVOrder(int32_t num_ranks, int32_t microbatches);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SCHEDULES_ORDERS_H_
