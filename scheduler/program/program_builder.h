// From the order of compute on each rank to a whole Program: adds messages,
// dependencies and the end of the step. Schedule generators only decide the
// order.

#ifndef TRIREME_SCHEDULER_PROGRAM_PROGRAM_BUILDER_H_
#define TRIREME_SCHEDULER_PROGRAM_PROGRAM_BUILDER_H_

#include <cstdint>
#include <vector>

#include "scheduler/program/program.h"

namespace trireme {

// One compute instruction; kind is kForward, kBackward, kBackwardInput or
// kBackwardWeight.
struct ComputeStep {
  InstructionKind kind = InstructionKind::kForward;
  int32_t microbatch = 0;
  int32_t chunk = 0;
};

// order[rank]: what the rank computes, in order.
using ComputeOrder = std::vector<std::vector<ComputeStep>>;

// The Program that computes in `order`. After a compute step come its sends;
// the receive of a step is posted before the step that precedes it, or earlier:
// no later than the step which the rank is in when the message is sent, if all
// ranks run without waiting for sends. That run is then possible also where
// every send blocks until its receive is posted, so the Program cannot
// deadlock. Neighbouring stages on one rank need no message. The step ends with
// ReduceGradients of each (chunk, bucket), ClipGradients, and Update of each,
// with `gather_parameters` followed by its GatherParameters.
//
// `stages`, `buckets` and `routes` as in Program. The order must be consistent
// (every backward after its forward on its rank, and steps where routes lead);
// the validator reports what is not. A chunk without a backward joins its
// group's reductions all the same.
Program BuildProgram(const ComputeOrder& order,
                     std::vector<StageLocation> stages, int32_t microbatches,
                     std::vector<int32_t> buckets,
                     bool gather_parameters = false,
                     std::vector<std::vector<int32_t>> routes = {});

// Stage s on rank s, chunk 0.
std::vector<StageLocation> OneStagePerRank(int32_t num_stages);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_PROGRAM_BUILDER_H_
