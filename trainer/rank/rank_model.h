// One rank's share of a training job: its part of the model, gradients,
// optimizer, Program and executor, built from a setup and a Plan.
//
// Build first makes the same share on a dry device and runs one whole step on
// it (of each of several sizes): a model that breaks a sharding rule is
// refused, the axes over which each gradient is summed are found, and the exact
// peak memory is known, all before the first real byte. Then it builds the real
// one.

#ifndef TRIREME_TRAINER_RANK_RANK_MODEL_H_
#define TRIREME_TRAINER_RANK_RANK_MODEL_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "offload/offloaded_units.h"
#include "offload/unit_window.h"
#include "parallel/executor/executor.h"
#include "parallel/optimizer/loss_scaler.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/parameters/delayed_scaling.h"
#include "parallel/parameters/frozen_parameters.h"
#include "parallel/sharding/gradient_reducer.h"
#include "parallel/sharding/logical_tensors.h"
#include "parallel/sharding/parameter_buckets.h"
#include "parallel/sharding/parameter_shards.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"
#include "trainer/rank/local_model.h"
#include "trainer/rank/plan_layout.h"
#include "trainer/rank/rank_offload.h"
#include "trainer/rank/stage_forward.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// The loss and gradient norm of a step, the same on every rank.
struct GlobalStepResult {
  double loss = 0;
  // What it is the sum of, by the losses' names.
  std::map<std::string, double> losses;
  // What all ranks counted in all microbatches, by name (Tape::Report).
  std::map<std::string, std::vector<double>> counts;
  int32_t bucket = 0;  // of its samples
  // Of this rank's samples, without padding where a field counts it; 0 but on
  // the one of the ranks with the same samples that counts them.
  double tokens = 0;
  double gradient_norm = 0;
  double loss_scale = 1;
  int64_t skipped_steps = 0;  // so far
  StepTimes times;            // of this rank
};

class RankModel {
 public:
  // What is done with a model between steps; a null one is nothing.
  using BetweenSteps = std::function<absl::Status(RankModel&)>;

  // `plan` is resolved and valid for the setup. Collective over the factory's
  // world. device and factory outlive the result. A plan with offload keeps the
  // blocks in at most `host_limit_bytes` of host memory, what a device of the
  // host takes included. `rehearsal` is done on the dry device after its step,
  // and what it takes predicted with it. Errors: a plan that does not compile,
  // a model that cannot be sharded so, a peak above a limit (with the largest
  // holders and the nearest fix).
  static absl::StatusOr<std::unique_ptr<RankModel>> Build(
      const TrainingSetup& setup, const Plan& plan, Device& device,
      CommunicatorFactory& factory, int64_t host_limit_bytes = kNoLimit,
      const BetweenSteps& rehearsal = nullptr);
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

  // The memory of one step on `rank` of the plan on a device of the kind, and
  // of `rehearsal` after it, from a dry step alone. Errors: as Build, but for
  // the limit.
  static absl::StatusOr<MemoryStatistics> PredictMemory(
      const TrainingSetup& setup, const Plan& plan, int rank,
      DeviceKind kind = DeviceKind::kCpu,
      const BetweenSteps& rehearsal = nullptr);

  // What a rank takes beside the device too.
  struct Needs {
    MemoryStatistics device;
    MemoryStatistics host;    // of blocks that are offloaded
    int64_t drive_bytes = 0;  // of its optimizer's states, and of its blocks
    DriveBytes drive_step;    // that a step moves
  };
  // The same, with the host's memory and the drive.
  static absl::StatusOr<Needs> PredictNeeds(
      const TrainingSetup& setup, const Plan& plan, int rank,
      DeviceKind kind = DeviceKind::kCpu,
      const BetweenSteps& rehearsal = nullptr);

  // The samples of the global batch that this rank's replica computes.
  int64_t first_sample() const { return layout_.first_sample; }
  int64_t local_batch() const { return layout_.local_batch; }
  // What this rank reads of them, where pictures come in several sizes at the
  // first.
  std::vector<FieldSpec> fields() const { return local_.Fields(); }

  // Objective::Counted of all ranks' local batches, the samples of a step.
  // Collective, where the objective counts anything.
  double CountedOf(const Batch& local_batch, const Objective& objective);

  // Trains on the local batch. Collective over the world.
  absl::StatusOr<GlobalStepResult> Step(const Batch& local_batch,
                                        const StepOptions& options);

  // Between steps: runs `evaluate`, which may set the model's inputs and run
  // its stages forward. `averaged`: with the moving average of the weights in
  // their place, where there is one. Training goes on as if nothing had been.
  // Collective over the world; not of a partial pipeline. Errors: those of
  // `evaluate`; out of memory.
  absl::Status Evaluate(
      bool averaged,
      const std::function<absl::Status(LocalModel&, StageForward&)>& evaluate);

  // A batch of this rank's fields on the model's device, for steps on a dry
  // one.
  Batch DryBatch(int32_t bucket = 0) const;
  // From now on computation takes `compute`'s time for the units, which take
  // what `seconds` says. For models on a dry device. `compute` outlives it.
  void EmulateCompute(const DeviceArithmetic& seconds,
                      EmulatedCompute& compute);

  // ResourceExhausted where the device, or the host for blocks that have their
  // home there, ran out of memory; the failure of a drive: what was computed
  // since means nothing.
  absl::Status status() const;
  // Predicted by the dry step.
  const MemoryStatistics& predicted_memory() const { return predicted_; }
  // What lies on a drive, and what of it was moved; null where nothing does.
  NvmeDevice* drive() const { return offload_ ? offload_->drive() : nullptr; }
  const StateStreamer* streamer() const { return optimizer_->streamer(); }
  const UnitWindow* window() const {
    return offload_ ? offload_->window() : nullptr;
  }
  // What a step moves of it, as the dry step has counted.
  const DriveBytes& drive_step() const { return drive_step_; }
  // What the blocks of a plan with offload take of the host's memory; zero
  // without.
  MemoryStatistics host_memory() const {
    return offload_ ? offload_->home().Statistics() : MemoryStatistics();
  }

  // This rank's parts of the logical tensors, for checkpoints and comparisons.
  // Nothing that the device was given before uses them any more. Of parameters
  // that train.
  std::vector<TensorPart> MasterParts();
  std::vector<TensorPart> EmaParts();
  std::vector<TensorPart> MomentParts(bool second);
  std::vector<TensorPart> GradientParts();
  // What forward reads, of all parameters: whole local tensors, or the owned
  // ranges of them where the plan shards or offloads; codes and scales of what
  // is quantised.
  std::vector<TensorPart> ValueParts();
  // Has `fill` write the values of parameters that do not train, one after the
  // other (parallel/parameters/frozen_parameters.h). Errors: fill's first.
  absl::Status FillFrozen(const FillValue& fill);
  // Has the magnitudes of weights that adapters decompose start as the norms of
  // their rows (parallel/layers/low_rank_adapter.h); whoever wrote these calls
  // it. Collective.
  void StartMagnitudes();
  // What quantising changed of this rank's parts of them, by name.
  const std::map<std::string, QuantizationError>& quantization_errors() const {
    return quantization_errors_;
  }
  // What all steps have copied between the device and the blocks' home.
  CopiedBytes copied_bytes() const;
  CopyTimes copy_times() const;
  // For checkpoints.
  LossScaler& loss_scaler() { return loss_scaler_; }
  // Null without delayed scaling of products in FP8.
  DelayedScaling* delayed_scaling() { return local_.delayed_scaling(); }
  // Steps that were left out as a whole (HealthConfig), which do not count in
  // Adam's bias correction: the next of them, or what a checkpoint says.
  int64_t left_out_steps() const { return left_out_steps_; }
  void set_left_out_steps(int64_t steps) { left_out_steps_ = steps; }
  // After masters were written: refreshes what forward reads.
  void SyncValues();

  ParallelContext& context() { return local_.context(); }
  const TrainingSetup& setup() const { return setup_; }
  const ProcessGrid& grid() const { return local_.grid(); }
  const Plan& plan() const { return plan_; }
  // What ranks report counts of (Tape::Report) in a training step, by name how
  // many: the same on all.
  const std::map<std::string, int64_t>& counts() const { return counts_; }
  const Program& program() const { return *program_; }
  // By its index in the Program.
  const Chunk& chunk(int i) const { return *local_.parts()[i].chunk; }
  // Of a chunk's unit in the whole model: 0 for the embedding, then the blocks,
  // then the head.
  int64_t UnitPosition(int chunk, int unit) const;
  // Microbatches visit some of the stages only (Plan.skip).
  bool partial() const { return plan_.has_skip(); }
  // How many blocks this rank computes in a step, for each sample that comes to
  // them.
  int64_t BlocksComputed() const;

 private:
  // What one chunk of this rank has for training.
  struct Training {
    std::unique_ptr<ParameterBuckets> buckets;
    std::unique_ptr<GradientReducer> reducer;
    // One of the two: where the plan offloads, the latter.
    std::unique_ptr<ParameterShards> shards;
    std::unique_ptr<OffloadedUnits> offloaded;

    UnitStore& units() const {
      if (offloaded) return *offloaded;
      return *shards;
    }
    Tensor OwnedValue(int bucket, int i) const {
      return offloaded ? offloaded->OwnedValue(bucket, i)
                       : shards->OwnedValue(bucket, i);
    }
  };

  // Of the ranks that hold the same samples one does, where losses are.
  bool CountsSamples() const;
  double TokensOf(const Batch& local_batch) const;

  // What one forward shows.
  struct Probe {
    // The axes of each parameter's gradient sum, by chunk and position.
    std::vector<std::vector<AxisSet>> sum_axes;
    std::set<std::string> losses;
    std::map<std::string, int64_t> counts;  // their lengths
  };

  // Makes the share on a dry device and runs a step of it. Has probe_.
  static absl::StatusOr<std::unique_ptr<RankModel>> DryRun(
      const TrainingSetup& setup, const Plan& plan, Device& dry_device,
      int rank, const BetweenSteps& rehearsal);
  // One forward without gradients, on a dry device of its own: refuses a model
  // that breaks a sharding rule.
  static absl::StatusOr<Probe> ProbeForward(const TrainingSetup& setup,
                                            const Plan& plan, int rank);
  // What it may take for blocks that are offloaded.
  struct HomeBytes {
    int64_t memory = kNoLimit;
    int64_t drive = 0;
  };
  static absl::StatusOr<std::unique_ptr<RankModel>> Create(
      const TrainingSetup& setup, const Plan& plan, Device& device,
      CommunicatorFactory& factory, const Probe& probe, const HomeBytes& home);
  // The model with its parameters; what trains it comes by BuildTraining.
  RankModel(const TrainingSetup& setup, const Plan& plan, PlanLayout layout,
            Device& device, CommunicatorFactory& factory,
            int64_t home_limit_bytes);
  absl::Status BuildTraining(const Probe& probe);
  // Of the names of this rank's losses and counts makes those of all.
  // Collective.
  void AgreeOnReports(const Probe& own);
  // What each part of the model has for training, but for the optimizer.
  void BuildParts(const Probe& probe);
  // Of blocks that lie on a drive, so far.
  DriveBytes BlocksMoved() const {
    return window() != nullptr ? window()->moved() : DriveBytes();
  }
  // Of each chunk, of a plan with offload.
  std::vector<const OffloadedUnits*> OffloadedChunks() const;
  // Updates of the last step are over, and so is all that is under way:
  // parameters and what the optimizer has of them may be read and written.
  void Settle();
  // Optimizer::ExchangeAverages, and tells whoever reads the values.
  void ExchangeAverages();
  void PublishValues();
  // The Program, and what its chunks are to an executor.
  absl::Status CompileOrdinary();
  absl::Status CompilePartial(std::vector<ExecutorChunk>& chunks);
  // What is kept of parameters that do not train.
  std::vector<TensorPart> FrozenParts() const;
  // Each parameter that this rank owns some of, with the given tensor of it.
  std::vector<TensorPart> Parts(Tensor OwnedParameter::*tensor);

  TrainingSetup setup_;
  Plan plan_;
  PlanLayout layout_;
  std::unique_ptr<RankOffload> offload_;  // null where the plan has none
  LocalModel local_;
  std::vector<Training> training_;  // by chunk
  LossScaler loss_scaler_;
  int64_t left_out_steps_ = 0;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<Executor> executor_;
  MemoryStatistics predicted_;
  DriveBytes drive_step_;
  Probe probe_;
  std::map<std::string, QuantizationError> quantization_errors_;
  std::vector<std::string> loss_names_;
  std::map<std::string, int64_t> counts_;  // their lengths, by name
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_RANK_MODEL_H_
