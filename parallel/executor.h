// Runs a rank's list of a Program for real: the executor of the "What an
// executor must do" of scheduler/program.h.
//
// Compute runs in list order on the calling thread. Receives are posted when
// their instruction comes and awaited by the instruction that depends on them;
// sends and gradient reductions stay in flight. One tape per (microbatch,
// chunk), released by its backward.

#ifndef TRIREME_PARALLEL_EXECUTOR_H_
#define TRIREME_PARALLEL_EXECUTOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/chunk.h"
#include "parallel/gradient_reducer.h"
#include "parallel/optimizer.h"
#include "parallel/parameter_shards.h"
#include "parallel/pipeline_messages.h"
#include "parallel/step_clock.h"
#include "scheduler/program.h"
#include "scheduler/trace.h"

namespace trireme {

// One chunk of this rank, by its index in the Program.
struct ExecutorChunk {
  Chunk* chunk = nullptr;
  GradientReducer* reducer = nullptr;
  ParameterShards* shards = nullptr;
  // Of the chunk's bucket 0 among the optimizer's buckets.
  int first_bucket = 0;
  // Of the reduced gradients, before they are clipped: what makes the sum over
  // the microbatches that visited the chunk's stage, of all, their mean.
  double gradient_factor = 1;
  // False for a stage that no microbatch visits: it keeps its values.
  bool updates = true;
};

struct StepOptions {
  int64_t step = 1;  // from 1
  double learning_rate = 0;
  // False: gradients are computed and reduced, but nothing is updated.
  bool update = true;
  // The factor in all gradients (loss_scaler.h). A step whose gradients
  // overflow updates nothing.
  double loss_scale = 1;
  // What StepTimes::costs are measured in (step_clock.h); 0: wall time.
  int processor_threads = 0;
  // If set, one event per instruction is appended.
  std::vector<TraceEvent>* trace = nullptr;
};

// A chunk's instructions in a step, all microbatches together; with the
// collectives inside, without the wait for other stages. A whole backward
// counts as its input half.
struct ChunkCosts {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
  double update = 0;
};

// What a step's instructions cost this rank, in seconds of the step's clock:
// what the simulator is given.
struct StepCosts {
  std::vector<ChunkCosts> chunks;
  // Before the first instruction: gradients are zeroed.
  double begin = 0;
  // Until the gradients are reduced, from the end of the last backward.
  double reduction = 0;
  double clip = 0;
  // Until all ranks are there to clip, in wall time: on the last of them what
  // the sum of the norm itself takes.
  double clip_wait = 0;
};

// Where a step's time went on this rank, in seconds. The step is forward,
// backward, optimizer, pipeline_wait and gradient_wait.
struct StepTimes {
  double step = 0;
  double forward = 0;
  double backward = 0;
  // Zeroing of gradients, their norm, and updates.
  double optimizer = 0;
  // For other stages: for their messages, and for the slowest of them before
  // clipping and at the step's end. Bubble and exposed transfer.
  double pipeline_wait = 0;
  // For gradient reductions after the last backward; without a pipeline also
  // for the slowest rank before clipping and at the step's end.
  double gradient_wait = 0;
  // For gathers of parameters and for gradient reductions inside forward and
  // backward, whose times include it.
  double sharding_wait = 0;
  StepCosts costs;
};

struct StepResult {
  // This rank's part of the loss sum over all ranks; 0 without the last stage.
  double local_loss = 0;
  double gradient_norm = 0;
  StepTimes times;
};

class Executor {
 public:
  // `pipeline_rank`: whose list of the Program to run. In a partial pipeline
  // (scheduler/skip/skip_program.h) that is the logical rank. All outlive it.
  Executor(ParallelContext& context, const Program& program, int pipeline_rank,
           std::vector<ExecutorChunk> chunks, Optimizer* optimizer);

  // One step. An error of the device (out of memory) ends it at once; the
  // caller must then end the job, since other ranks wait for this one.
  absl::StatusOr<StepResult> RunStep(const StepOptions& options);

  // Blocks until `event`, for which all ranks come together at a step's end,
  // and adds the wait to the step's times.
  void AwaitAll(Event event, StepTimes& times) const;

 private:
  // A chunk's run of one microbatch between forward and backward.
  struct Pass {
    std::unique_ptr<Tape> tape;
    std::vector<Variable> inputs;
    std::vector<Variable> outputs;
  };
  using Key = std::pair<int, int>;  // microbatch, chunk

  // A forward or backward of one of this rank's chunks.
  struct ChunkPass {
    ParameterShards* shards = nullptr;
    PassDirection direction = PassDirection::kForward;
  };
  // From a chunk's first computation of a pass to its last its shards look
  // after its parameters.
  class Residency;
  // The pass that an instruction is, if it is one.
  std::optional<ChunkPass> PassOf(const Instruction& instruction) const;
  // The pass that follows instruction `index`, if any does.
  std::optional<ChunkPass> PassAfter(size_t index) const;
  void Run(size_t index, const StepOptions& options, StepResult& result);
  // Books what an instruction took, without its wait for messages.
  void Book(const Instruction& instruction, const StepClock::Span& spent,
            StepTimes& times) const;
  // Books a wait for the slowest rank of the model.
  void BookWaitForAll(double seconds, StepTimes& times) const;
  void ClipGradients(const StepOptions& options, StepResult& result);
  void Forward(const Instruction& instruction, StepResult& result);
  void Backward(const Instruction& instruction,
                Tape::WeightGradients weight_gradients);
  void BackwardWeight(const Instruction& instruction);
  void Receive(const Instruction& instruction);
  std::vector<Tensor> Await(PipelineMessages::Arrival arrival);

  ParallelContext& context_;
  const Program& program_;
  int pipeline_rank_;
  std::vector<ExecutorChunk> chunks_;
  Optimizer* optimizer_;

  // Of the step in progress.
  StepClock clock_;
  StepClock::Span waited_;  // for messages
  std::map<Key, Pass> passes_;
  PipelineMessages messages_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_H_
