// Layer offloading (Superpipeline): from a Program whose parameters are all on
// their devices to one that streams them through, unit by unit.
//
// A unit is one block of a chunk. Forward and Backward of a chunk become one
// instruction for each of its units. Before a unit computes it is fetched into
// a place on the device, in which another one is no longer needed so soon: that
// whose next use in the step lies furthest ahead (Belady's rule, which copies
// least), but for the unit that computes just before, so that there is compute
// for the copy to hide behind. A place is refilled as soon as its last use is
// over.
// In a pass forward and back the last units of
// the forward thus start the backward, and of N units with k places a
// microbatch copies 2 (N - k), the least possible, and the step's first k more.
// Parameters do not change within a step, so that what is evicted is dropped,
// not copied.
//
// Gradients leave for the host after each backward of a unit, through
// Offload::kGradientBuffers buffers: a backward waits until the one before the
// last has left. The optimizer runs on the host, unit by unit, under the next
// step's forward: each unit is updated just before it first comes to the
// device. The norm that clips all gradients is known by then, so that nothing
// is stale, and a step of one microbatch takes
//   T_b + max(T_f, T_A, copies)
// in place of T_f + T_b + T_A. With more, updates hide behind the first one's
// forward.
//
// Where data-parallel ranks share units, a fetch ends with the gather of the
// others' shares, and gradients are summed over the ranks before they leave:
// the rank's share is all that crosses.
//
// Unit-major, forwards that follow one another, and backwards, run each unit on
// all their microbatches before the next. A copy then hides behind the compute
// of them all, weights cross once a pass of the step in place of each
// microbatch's, gradients leave once, and updates hide behind all forwards. All
// microbatches' activations are held.
//
// Where activations leave, what a unit keeps of its input goes to the host
// after its forward and comes back while the computation before its backward
// runs; it starts to once the one before that has ended, so that a device holds
// a few of them. Whose backward comes so soon that it would return before it
// had left stays.

#ifndef TRIREME_SCHEDULER_PROGRAM_OFFLOAD_PASS_H_
#define TRIREME_SCHEDULER_PROGRAM_OFFLOAD_PASS_H_

#include <cstdint>

#include "scheduler/program/program.h"

namespace trireme {

struct OffloadOptions {
  bool unit_major = false;
  bool activations = false;
};

// `program` with at most `resident_units` units of each rank on its device;
// ranks with no more keep theirs through the step. The program must be valid,
// with whole backwards and without parameter gathers and offload; the units of
// a stage are its gradient buckets, as many as it has blocks. The result is
// valid.
Program OffloadUnits(const Program& program, int32_t resident_units,
                     const OffloadOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_OFFLOAD_PASS_H_
