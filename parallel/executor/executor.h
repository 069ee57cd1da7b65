// Runs a rank's list of a Program for real: the executor of the "What an
// executor must do" of scheduler/program/program.h.
//
// Each instruction is issued on the stream of its resource, after the events of
// what it depends on; on a device whose only stream is the host's, compute runs
// as it is issued. Receives are posted when their instruction comes and awaited
// by the instruction that depends on them; sends and gradient reductions stay
// in flight. One ChunkPass per (microbatch, chunk), released by its backward.
//
// Updates of a Program with offload are carried out one step later, by the host
// while the device computes: before each the device has been given all that
// comes before it in the list.

#ifndef TRIREME_PARALLEL_EXECUTOR_EXECUTOR_H_
#define TRIREME_PARALLEL_EXECUTOR_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/executor/chunk.h"
#include "parallel/executor/chunk_pass.h"
#include "parallel/executor/pipeline_messages.h"
#include "parallel/executor/step_ledger.h"
#include "parallel/executor/step_trace.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/sharding/gradient_reducer.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/device/stream.h"
#include "runtime/device/stream_stopwatch.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/trace.h"

namespace trireme {

// What a Program with offload calls a unit of a chunk: a block, with the
// embedding before the first and the head after the last.
struct ProgramUnit {
  // Units of the chunk: [begin, end).
  int begin = 0;
  int end = 0;
  // The reducer's buckets of their parameters.
  std::vector<int> buckets;
};

// One chunk of this rank, by its index in the Program.
struct ExecutorChunk {
  Chunk* chunk = nullptr;
  GradientReducer* reducer = nullptr;
  UnitStore* units = nullptr;
  // Of a Program with offload; else empty.
  std::vector<ProgramUnit> program_units;
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
  // Asked before anything is updated, with this step's loss over all ranks and
  // the gradient's norm, the same on every rank: false, and nothing is. Absent:
  // every step whose norm is finite updates.
  std::function<bool(double loss, double gradient_norm)> admits;
  // Shown what each unit makes.
  UnitObserver observer;
  // What StepTimes::costs are measured in (step_clock.h); 0: wall time.
  int processor_threads = 0;
  // If set, one event per instruction is appended.
  std::vector<TraceEvent>* trace = nullptr;
};

struct StepResult {
  // By the losses' names, this rank's part of Σ weight·loss over all
  // microbatches and ranks; without those that no unit of this rank adds.
  std::map<std::string, double> losses;
  // By name, what this rank's units counted in all microbatches (Tape::Report).
  std::map<std::string, std::vector<double>> counts;
  double gradient_norm = 0;
  StepTimes times;
};

class Executor {
 public:
  // `pipeline_rank`: whose list of the Program to run. In a partial pipeline
  // (scheduler/partial/program.h) that is the logical rank. All outlive it.
  Executor(ParallelContext& context, const Program& program, int pipeline_rank,
           std::vector<ExecutorChunk> chunks, Optimizer* optimizer);

  // From now on computation takes `compute`'s times. For models on a dry
  // device. Outlives its use.
  void set_emulated_compute(EmulatedCompute* compute) { emulated_ = compute; }

  // One step. An error of the device (out of memory) ends it at once; the
  // caller must then end the job, since other ranks wait for this one.
  absl::StatusOr<StepResult> RunStep(const StepOptions& options);

  // Carries out the updates that the last step has left to the next one's
  // list. Between steps, before anyone reads or writes what updates change.
  void FinishUpdates();

  // Seconds, of what is over, for which computation waited for copies that the
  // Program orders before it.
  double waited_for_copies_in() const { return waits_for_copies_in_.seconds(); }
  double waited_for_copies_out() const {
    return waits_for_copies_out_.seconds();
  }

  // Blocks until `event`, for which all ranks come together at a step's end,
  // and adds the wait to the step's times.
  void AwaitAll(Event event, StepTimes& times) const;

 private:
  using Key = std::pair<int, int>;  // microbatch, chunk

  // Whether the step's list of instructions waits for other stages.
  bool has_pipeline() const {
    return context_.grid().size(Axis::kPipeline) > 1;
  }
  // The unit that the first pass after instruction `index` begins with.
  StoredUnit UnitAfter(size_t index) const;
  // Whether what runs beside computation takes its time in sleep: of a Program
  // with offload alone.
  bool Emulates() const {
    return emulated_ != nullptr && program_.offload.has_value();
  }
  // Whether the instruction takes the time of this thread, which stands for the
  // compute stream: not copies and updates.
  static bool RunsOnHostThread(const Instruction& instruction);
  // Before an instruction: what runs beside computation begins when it may, and
  // this thread sleeps until what it needs of that is over.
  void EmulateBeside(size_t index, StepLedger& ledger);
  // Whether the host itself needs what the instruction depends on.
  bool ReadsOnHost(const Instruction& instruction) const;
  // The chunk's units that Forward or Backward runs.
  ProgramUnit UnitsOf(const Instruction& instruction) const;
  // The reducer's buckets that the Program calls one.
  std::vector<int> BucketsOf(const Instruction& instruction) const;
  // Has the instruction's stream, or the host, wait for what it depends on.
  void AwaitDependencies(const Instruction& instruction, StepLedger& ledger);
  // The compute stream, if its work is not done as it is given.
  Stream* StreamBehindHost() const;
  // Runs an instruction on its stream.
  void Issue(size_t index, const StepOptions& options, StepLedger& ledger,
             std::optional<StepTrace>& trace);
  void Run(size_t index, const StepOptions& options, StepLedger& ledger);
  void Forward(size_t index, const StepOptions& options, StepLedger& ledger);
  void Backward(size_t index, Tape::WeightGradients weight_gradients,
                StepLedger& ledger);
  void BackwardWeight(const Instruction& instruction);
  void Receive(const Instruction& instruction);
  // Fetch, Release and SaveGradients.
  void Copy(const Instruction& instruction);
  // SaveActivation and LoadActivation.
  void CopyInputs(const Instruction& instruction);
  void ClipGradients(const StepOptions& options, StepLedger& ledger);
  // Of a bucket, by its position among the optimizer's.
  void Update(int bucket, int64_t step, double learning_rate);
  // What is left of the instruction's updates; then its gradients are of this
  // step.
  void UpdateLeft(const Instruction& instruction);
  // What is left to be done with the last step's gradients of a bucket, which
  // then is whole again where ranks share it.
  void UseLeft(const ExecutorChunk& chunk, int bucket);
  // What comes to or leaves the instruction's chunk with that payload.
  std::vector<BoundarySpec> Crossing(const Instruction& instruction,
                                     Payload payload, bool incoming) const;
  // What came for a pass, once it is there; empty where nothing was to come.
  std::vector<Tensor> Await(Payload payload, const Instruction& instruction,
                            StepLedger& ledger);
  void AddLosses(const std::vector<Tape::Loss>& losses);
  void AddCounts(const std::vector<Tape::Counts>& counts);
  // The step's losses so far, weighted, read back from the device.
  std::map<std::string, double> Losses() const;
  // Read the step's losses and counts back, and forget them.
  std::map<std::string, double> TakeLosses();
  std::map<std::string, std::vector<double>> TakeCounts();

  ParallelContext& context_;
  const Program& program_;
  int pipeline_rank_;
  std::vector<ExecutorChunk> chunks_;
  Optimizer* optimizer_;
  EmulatedCompute* emulated_ = nullptr;
  // Of the optimizer's buckets, as the Program has them.
  std::vector<int> update_order_;
  // With the gradients of the last step that are still to be used.
  struct Left {
    std::set<int> buckets;
    int64_t step = 0;
    double learning_rate = 0;
  };
  Left left_;
  // Of the compute stream while the host updates.
  StreamStopwatch waits_for_updates_;
  StreamStopwatch waits_for_copies_in_;
  StreamStopwatch waits_for_copies_out_;

  // Of the step in progress. By instruction: when its stream has come so far.
  std::vector<Event> issued_;
  // The same where time is slept through (EmulatedCompute::Now): when the
  // instruction is over, and the last update that it depends on.
  struct Ended {
    double all = 0;
    double update = 0;
  };
  std::vector<Ended> ended_;
  std::map<Key, ChunkPass> passes_;
  PipelineMessages messages_;
  // Sums, in fp64, from an origin of their own.
  std::map<std::string, Tensor> losses_;
  std::map<std::string, Tensor> counts_;  // sums, in fp64
  double gradient_norm_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_EXECUTOR_H_
