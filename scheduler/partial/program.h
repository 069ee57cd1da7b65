// SkipPipe's paths as a Program.
//
// How a Program expresses them. Each node is a pipeline rank of its own:
// data-parallel replicas of a stage take different microbatches in different
// orders, so they cannot share a list. Program::stages then lists not the
// model's stages but *holdings*: (node, chunk) pairs, in the order of the
// nodes. Chunk 0 of a node is its stage of the model; a data node has a chunk
// 1, the head: final norm, head and loss, after which the backward begins.
// SkipProgram::model_stage says what each holding holds; holdings of the same
// model stage form a reduction group.
//
// Messages. hop = 0 .. 2 L - 1 is the number of the message on the
// microbatch's way: hop h < L carries the activation from path[h] to path[h +
// 1] (to the head of path[0] from path[L - 1]), hop L + i the gradient back
// over the link of hop L - 1 - i. (payload, hop, microbatch) stays unique in a
// step, which stage boundaries would not be. What conditions every stage (text
// tokens, timestep) travels in the activation message beside the residual
// stream, to every visited node and no other; its gradient comes back with the
// stream's.
//
// Gradients. A stage's gradient is the mean over the microbatches that visit
// it: sum over its reduction group, divided by visits[model stage]. Dividing
// by all microbatches instead shrinks the gradients of stages that are
// skipped. A stage without visits takes no update, weight decay included.
//
// Of the general validator, ValidateStructure, ValidateEndOfStep and
// ValidateProgress hold here unchanged; ValidateMessages and ValidateWork
// assume that hop h joins stages h and h + 1 and that every microbatch visits
// every stage: ValidateSkipProgram takes their place. The Executor must read
// peers from the instructions (it does), reduce over holdings of one model
// stage and scale by visits.

#ifndef TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_
#define TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"
#include "scheduler/program/program.h"

namespace trireme {

struct SkipProgram {
  // Ranks are nodes, stages are holdings.
  Program program;
  // [holding]: stage of the model; the head counts as stage num_stages.
  std::vector<int32_t> model_stage;
  // [model stage, head included]: microbatches that visit it.
  std::vector<int32_t> visits;
};

// Each node's list computes in the schedule's order. A receive is posted
// before the task that precedes its reader, or earlier: before the task that
// the node is in, by the planned times, when the message is sent. In the
// planned run, then, no send ever waits, so it is possible where every send
// blocks until its receive is posted. The step ends with ReduceGradients,
// ClipGradients and Update. buckets[holding]: its gradient buckets. Errors as
// ValidateSkipSchedule. Pure; any thread.
absl::StatusOr<SkipProgram> BuildSkipProgram(const SkipInstance& instance,
                                             const SkipSchedule& schedule,
                                             std::vector<int32_t> buckets);

// That the program does exactly what the schedule's paths say (each task once,
// where its path is, reading its own message and sending its result on), ends
// the step as every Program must, and runs to its end where every send blocks
// until its receive is posted. InvalidArgument with rank and instruction, or
// microbatch and node.
absl::Status ValidateSkipProgram(const SkipInstance& instance,
                                 const std::vector<NodePath>& paths,
                                 const SkipProgram& program);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_
