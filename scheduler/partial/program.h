// SkipPipe's paths as a Program.
//
// Each node is a pipeline rank of its own: data-parallel replicas of a stage
// take different microbatches in different orders, so they cannot share a list.
// Program::stages then lists not the model's stages but *holdings*: (node,
// chunk) pairs, in the order of the nodes. Chunk 0 of a node is its stage of
// the model; a data node has a chunk 1, the head: final norm, head and loss,
// after which the backward begins. SkipProgram::model_stage says what each
// holding holds; holdings of the same model stage form a reduction group.
//
// A microbatch's route is its path, from the data node's stage back to the data
// node's head. What conditions every stage (text tokens, timestep) travels in
// the activation message beside the residual stream, to every visited node and
// no other; its gradient comes back with the stream's.
//
// Gradients. A stage's gradient is the mean over the microbatches that visit
// it: sum over its reduction group, divided by visits[model stage]. Dividing
// by all microbatches instead shrinks the gradients of stages that are
// skipped. A stage without visits takes no update, weight decay included.

#ifndef TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_
#define TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_

#include <cstdint>
#include <vector>

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

// Each node's list computes in the schedule's order (BuildProgram).
// buckets[holding]: its gradient buckets. The result is valid
// (ValidateProgram); other errors as ValidateSkipSchedule. Pure; any thread.
absl::StatusOr<SkipProgram> BuildSkipProgram(const SkipInstance& instance,
                                             const SkipSchedule& schedule,
                                             std::vector<int32_t> buckets);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_PROGRAM_H_
