#include "trainer/rank_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "parallel/chunk_pass.h"
#include "runtime/comm/dry.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/compile.h"
#include "scheduler/plan.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/skip/skip_plan.h"
#include "scheduler/skip/skip_program.h"
#include "scheduler/stage_ranks.h"
#include "trainer/plan_translation.h"

namespace trireme {
namespace {}  // namespace

absl::StatusOr<RankModel::SumAxes> RankModel::ProbeSumAxes(
    const TrainingSetup& setup, const Plan& plan, int rank) {
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  DryWorld world(rank, static_cast<int>(NumRanks(plan)));
  RankModel model(setup, plan);
  RETURN_IF_ERROR(model.BuildParts(device, world, /*allocate=*/true));
  model.SetBatch(model.DryBatch());
  SumAxes sum_axes;
  for (const Part& part : model.parts_) {
    AllResident store;
    ChunkPass pass(*model.context_, *part.chunk, store,
                   model.first_microbatch_);
    pass.Forward(EmptyBoundary(device, part.chunk->Boundary(0)));
    RETURN_IF_ERROR(model.context_->status());
    std::vector<AxisSet>& of_chunk = sum_axes.emplace_back();
    for (const auto& parameter : part.store->parameters()) {
      of_chunk.push_back(parameter->gradient_sum_axes);
    }
  }
  return sum_axes;
}

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::DryRun(
    const TrainingSetup& setup, const Plan& plan, Device& dry_device,
    int rank) {
  ASSIGN_OR_RETURN(SumAxes sum_axes, ProbeSumAxes(setup, plan, rank));
  DryWorld world(rank, static_cast<int>(NumRanks(plan)));
  std::unique_ptr<RankModel> model(new RankModel(setup, plan));
  RETURN_IF_ERROR(model->BuildParts(dry_device, world, /*allocate=*/false));
  RETURN_IF_ERROR(model->BuildTraining(sum_axes));
  RETURN_IF_ERROR(model->Step(model->DryBatch(), {.step = 1}).status());
  RETURN_IF_ERROR(model->context_->status());
  model->sum_axes_ = std::move(sum_axes);
  return model;
}

absl::StatusOr<MemoryStatistics> RankModel::PredictMemory(
    const TrainingSetup& setup, const Plan& plan, int rank) {
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  RETURN_IF_ERROR(DryRun(setup, plan, device, rank).status());
  return device.Statistics();
}

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::Build(
    const TrainingSetup& setup, const Plan& plan, Device& device,
    CommunicatorFactory& factory) {
  CpuDevice dry_device(std::numeric_limits<int64_t>::max(),
                       CpuDevice::Mode::kDry);
  ASSIGN_OR_RETURN(const std::unique_ptr<RankModel> dry,
                   DryRun(setup, plan, dry_device, factory.world_rank()));
  const MemoryStatistics predicted = dry_device.Statistics();
  const int64_t limit = device.Statistics().limit_bytes;
  if (predicted.peak_bytes > limit) {
    return ResourceExhausted(
        "rank {} ({}) would need {} of its limit of {}: {}. To fit: raise "
        "memory_limit_bytes, use a smaller microbatch_size, recompute FULL, or "
        "a larger tp or pp",
        factory.world_rank(), dry->grid_->ToString(),
        BytesText(predicted.peak_bytes), BytesText(limit),
        MemoryText(predicted.at_peak_by_category));
  }

  std::unique_ptr<RankModel> model(new RankModel(setup, plan));
  model->predicted_ = predicted;
  RETURN_IF_ERROR(model->BuildParts(device, factory, /*allocate=*/false));
  RETURN_IF_ERROR(model->BuildTraining(dry->sum_axes_));
  return model;
}

absl::Status RankModel::BuildGrid(Device& device,
                                  CommunicatorFactory& factory) {
  ASSIGN_OR_RETURN(ProcessGrid grid, GridOf(plan_, factory.world_rank()));
  grid_ = std::make_unique<ProcessGrid>(std::move(grid));
  CommunicatorOptions options;
  options.ulysses = static_cast<int>(plan_.ulysses());
  options.shard_group =
      ShardingOf(plan_).ShardsAt(DataSharding::Level::kOptimizer);
  local_batch_ =
      static_cast<int64_t>(plan_.microbatches()) * plan_.microbatch_size();
  first_sample_ = local_batch_ * grid_->coordinate(Axis::kData);
  if (partial()) {
    if (setup_.model.joint_text()) {
      return InvalidArgument(
          "plan.skip: found a model with joint text attention, expected one "
          "whose last block is like all others");
    }
    ASSIGN_OR_RETURN(SkipSchedule schedule, SkipScheduleOf(plan_));
    options.channels = SkipChannels(schedule);
    skip_ = std::make_unique<SkipSchedule>(std::move(schedule));
    // Microbatches are numbered over all replicas. The first stage's ranks
    // embed their own; any may come to the others.
    if (grid_->is_first_stage()) {
      first_microbatch_ = static_cast<int64_t>(plan_.microbatches()) *
                          grid_->coordinate(Axis::kData);
    } else {
      local_batch_ *= plan_.grid().dp();
      first_sample_ = 0;
    }
  }
  communicators_ = std::make_unique<Communicators>(factory, *grid_, options);
  context_ = std::make_unique<ParallelContext>(
      device, *grid_, *communicators_,
      ParallelOptions{.sequence_parallel = plan_.sequence_parallel()});
  return absl::OkStatus();
}

std::vector<DitPartOptions> RankModel::PartOptions() const {
  std::vector<DitPartOptions> options;
  for (const int32_t stage : StagesOfRank()) {
    options.push_back({.blocks = BlocksOfStage(plan_, stage),
                       .recompute = RecomputeOf(plan_),
                       .sequence_parallel = plan_.sequence_parallel()});
    if (partial()) options.back().head = false;
  }
  if (partial() && grid_->is_first_stage()) {
    DitPartOptions& head = options.emplace_back(options.front());
    head.blocks = {.first = setup_.model.layers, .end = setup_.model.layers};
    head.head = true;
  }
  return options;
}

absl::Status RankModel::BuildParts(Device& device, CommunicatorFactory& factory,
                                   bool allocate) {
  RETURN_IF_ERROR(BuildGrid(device, factory));
  for (const DitPartOptions& options : PartOptions()) {
    Part part;
    part.store = std::make_unique<ParameterStore>(
        device, setup_.dtype, setup_.seed,
        allocate || plan_.sharding() != Plan::PARAMETERS);
    part.model =
        std::make_unique<DitPart>(*part.store, *grid_, setup_.model, options);
    part.chunk = std::make_unique<DitChunk>(
        *part.model, DitChunkOptions{.flow = setup_.flow,
                                     .seed = setup_.seed,
                                     .dtype = setup_.dtype,
                                     .microbatch_size = plan_.microbatch_size(),
                                     .first_microbatch = first_microbatch_,
                                     .global_batch = setup_.global_batch});
    parts_.push_back(std::move(part));
  }
  return device.status();
}

std::vector<int32_t> RankModel::StagesOfRank() const {
  const std::vector<StageLocation> locations = StagesOf(plan_);
  std::vector<int32_t> stages(plan_.chunks_per_rank());
  for (size_t stage = 0; stage < locations.size(); ++stage) {
    if (locations[stage].rank == grid_->coordinate(Axis::kPipeline)) {
      stages[locations[stage].chunk] = static_cast<int32_t>(stage);
    }
  }
  return stages;
}

bool RankModel::has_embedding() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) {
    return part.model->has_embedding();
  });
}

bool RankModel::has_head() const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [](const Part& part) { return part.model->has_head(); });
}

void RankModel::SetBatch(const Batch& batch) {
  for (const Part& part : parts_) part.chunk->set_batch(batch);
}

absl::Status RankModel::BuildTraining(const SumAxes& sum_axes) {
  std::vector<std::vector<OwnedParameter>> owned;
  std::vector<ExecutorChunk> chunks;
  const std::vector<int> contributions = ContributionsOfChunks();
  const GradientReducer::Timing timing =
      partial() && !AllReplicasVisited()
          ? GradientReducer::Timing::kInOrder
          : GradientReducer::Timing::kWhenComplete;
  for (size_t i = 0; i < parts_.size(); ++i) {
    Part& part = parts_[i];
    const auto& parameters = part.store->parameters();
    for (size_t j = 0; j < parameters.size(); ++j) {
      parameters[j]->gradient_sum_axes = sum_axes[i][j];
    }
    part.buckets = std::make_unique<ParameterBuckets>(
        *context_, parameters,
        static_cast<int64_t>(plan_.gradient_bucket_bytes()), ShardingOf(plan_));
    part.shards = std::make_unique<ParameterShards>(*context_, *part.buckets,
                                                    setup_.seed);
    part.reducer = std::make_unique<GradientReducer>(*context_, *part.buckets,
                                                     contributions[i], timing);
    chunks.push_back({.chunk = part.chunk.get(),
                      .reducer = part.reducer.get(),
                      .units = part.shards.get(),
                      .first_bucket = static_cast<int>(owned.size())});
    for (int b = 0; b < part.buckets->size(); ++b) {
      const ParameterBucket& bucket = (*part.buckets)[b];
      std::vector<OwnedParameter>& of_bucket = owned.emplace_back();
      for (int p = 0; p < static_cast<int>(bucket.parameters.size()); ++p) {
        const ElementRange range = bucket.Owned(p);
        if (range.size() == 0) continue;
        OwnedParameter entry;
        entry.parameter = bucket.parameters[p];
        entry.range = range;
        entry.value = part.shards->OwnedValue(b, p);
        entry.gradient =
            part.reducer->OwnedGradient(b, p).Reshape(entry.value.shape());
        of_bucket.push_back(std::move(entry));
      }
    }
  }
  optimizer_ = std::make_unique<Optimizer>(*context_, setup_.optimizer,
                                           setup_.seed, std::move(owned));
  RETURN_IF_ERROR(partial() ? CompilePartial(chunks) : CompileOrdinary());
  const int pipeline_rank =
      partial() ? grid_->logical_rank() : grid_->coordinate(Axis::kPipeline);
  executor_ = std::make_unique<Executor>(*context_, *program_, pipeline_rank,
                                         std::move(chunks), optimizer_.get());
  return context_->device().status();
}

std::vector<int> RankModel::ContributionsOfChunks() const {
  std::vector<int> contributions(parts_.size(),
                                 static_cast<int>(plan_.microbatches()));
  if (!partial()) return contributions;
  contributions[0] = VisitsOf(*skip_, grid_->logical_rank());
  return contributions;
}

bool RankModel::AllReplicasVisited() const {
  const int first = grid_->logical_rank() - grid_->coordinate(Axis::kData);
  for (int rank = first; rank < first + grid_->size(Axis::kData); ++rank) {
    if (VisitsOf(*skip_, rank) == 0) return false;
  }
  return true;
}

absl::Status RankModel::CompileOrdinary() {
  CompileOptions options;
  options.buckets_per_stage.assign(plan_.stages_size(), 1);
  const std::vector<int32_t> stages = StagesOfRank();
  for (size_t i = 0; i < parts_.size(); ++i) {
    options.buckets_per_stage[stages[i]] = parts_[i].buckets->size();
  }
  ASSIGN_OR_RETURN(Program program, CompilePlan(plan_, options));
  program_ = std::make_unique<Program>(std::move(program));
  return absl::OkStatus();
}

absl::Status RankModel::CompilePartial(std::vector<ExecutorChunk>& chunks) {
  const SkipInstance instance = SkipInstanceOf(plan_);
  std::vector<int32_t> buckets(instance.num_nodes() + instance.num_data_nodes(),
                               1);
  // Holdings come node by node, those of data nodes two by two.
  const int own = grid_->logical_rank();
  const int first = own + std::min(own, instance.num_data_nodes());
  for (size_t i = 0; i < parts_.size(); ++i) {
    buckets[first + i] = parts_[i].buckets->size();
  }
  ASSIGN_OR_RETURN(SkipProgram compiled,
                   BuildSkipProgram(instance, *skip_, std::move(buckets)));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int32_t visits = compiled.visits[compiled.model_stage[first + i]];
    chunks[i].updates = visits > 0;
    if (visits > 0 && plan_.skip().divisor() == Plan::Skip::VISITS) {
      chunks[i].gradient_factor =
          static_cast<double>(instance.num_microbatches()) / visits;
    }
  }
  program_ = std::make_unique<Program>(std::move(compiled.program));
  return absl::OkStatus();
}

absl::StatusOr<GlobalStepResult> RankModel::Step(const Batch& local_batch,
                                                 const StepOptions& options) {
  CHECK_EQ(local_batch.size(), local_batch_);
  SetBatch(local_batch);
  const double scale = loss_scaler_.state().scale;
  StepOptions scaled = options;
  // Steps that were left out do not count in Adam's bias correction.
  scaled.step = options.step - loss_scaler_.state().skipped_steps;
  scaled.loss_scale = scale;
  ASSIGN_OR_RETURN(const StepResult step, executor_->RunStep(scaled));
  // All ranks have the same norm, and so the same scale.
  loss_scaler_.Update(std::isfinite(step.gradient_norm));
  double loss = step.local_loss();
  GlobalStepResult result;
  result.times = step.times;
  executor_->AwaitAll(context_->communicators().control().StartSum(
                          std::span<double>(&loss, 1), "loss"),
                      result.times);
  result.loss = loss;
  result.gradient_norm = step.gradient_norm;
  result.loss_scale = scale;
  result.skipped_steps = loss_scaler_.state().skipped_steps;
  return result;
}

std::vector<FieldSpec> RankModel::fields() const {
  return DitFields(setup_.model, has_embedding(), has_head());
}

void RankModel::EmulateCompute(const DeviceArithmetic& seconds,
                               EmulatedCompute& compute) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    const DitPart& model = *parts_[i].model;
    const DitChunk& chunk = *parts_[i].chunk;
    for (int unit = 0; unit < chunk.num_units(); ++unit) {
      ArithmeticSeconds times = seconds.block;
      if (model.has_embedding() && unit == 0) {
        times = seconds.embedding;
      } else if (model.has_head() && unit == chunk.num_units() - 1) {
        times = seconds.head;
      }
      // A unit that is run again takes its forward's time once more.
      if (chunk.Recomputes(unit)) times.backward_s += times.forward_s;
      compute.SetUnit(
          static_cast<int>(i), unit,
          {.forward = times.forward_s,
           .backward_input = times.backward_s - times.backward_weight_s,
           .backward_weight = times.backward_weight_s});
    }
  }
  compute.set_update_seconds(seconds.update_s);
  executor_->set_emulated_compute(&compute);
}

std::vector<TensorPart> RankModel::Parts(Tensor OwnedParameter::*tensor) {
  std::vector<TensorPart> parts;
  for (const std::vector<OwnedParameter>& bucket : optimizer_->owned()) {
    for (const OwnedParameter& owned : bucket) {
      if (!(owned.*tensor).defined()) continue;
      const Parameter& parameter = *owned.parameter;
      parts.push_back({.name = parameter.name,
                       .global_shape = parameter.global_shape,
                       .shards = parameter.shards,
                       .local = owned.*tensor,
                       .begin = owned.range.begin,
                       .end = owned.range.end,
                       .data_shards = ShardingOf(plan_).ShardsAt(
                           DataSharding::Level::kOptimizer)});
    }
  }
  return parts;
}

std::vector<TensorPart> RankModel::MasterParts() {
  return Parts(&OwnedParameter::master);
}

std::vector<TensorPart> RankModel::EmaParts() {
  return Parts(&OwnedParameter::ema);
}

std::vector<TensorPart> RankModel::MomentParts(bool second) {
  return Parts(second ? &OwnedParameter::v : &OwnedParameter::m);
}

std::vector<TensorPart> RankModel::GradientParts() {
  return Parts(&OwnedParameter::gradient);
}

void RankModel::SyncValues() {
  optimizer_->SyncValues();
  for (const Part& part : parts_) {
    for (int bucket = 0; bucket < part.buckets->size(); ++bucket) {
      part.shards->Publish(bucket);
    }
  }
}

}  // namespace trireme
