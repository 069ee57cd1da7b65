#include "trainer/rank/rank_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "models/data/field_readers.h"
#include "parallel/executor/chunk_pass.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/comm/dry.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/partial/plan.h"
#include "scheduler/partial/program.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "scheduler/program/compile.h"
#include "scheduler/schedules/schedule.h"
#include "trainer/rank/plan_translation.h"

namespace trireme {
namespace {

std::string Either(const std::vector<std::string_view>& ways) {
  return fmt::format("{} or {}", fmt::join(ways.begin(), ways.end() - 1, ", "),
                     ways.back());
}

// What would take less of the device's memory than the plan.
std::string WaysToFitDevice(const Plan& plan) {
  std::vector<std::string_view> ways = {"raise memory_limit_bytes"};
  if (plan.microbatch_size() > 1) {
    ways.emplace_back("use a smaller microbatch_size");
  }
  if (plan.recompute() != Plan::FULL || plan.recompute_blocks() > 0) {
    ways.emplace_back("recompute FULL");
  } else if (plan.has_offload() && !plan.offload().activations()) {
    ways.emplace_back("offload.activations");
  }
  if (plan.offload().device_blocks() > 0) {
    ways.emplace_back("a smaller offload.device_blocks");
  }
  if (plan.offload().resident_units() > 1) {
    ways.emplace_back("a smaller offload.resident_units");
  } else if (!plan.has_offload() && !plan.has_skip() &&
             !ScheduleOf(plan).splits_backward) {
    ways.emplace_back("offload");
  }
  ways.emplace_back("a larger tp or pp");
  return Either(ways);
}

// The same of the host's memory, of a plan with offload.
std::string WaysToFitHost(const Plan::Offload& offload) {
  std::vector<std::string_view> ways = {"use fewer ranks on this machine"};
  if (!offload.has_nvme()) {
    ways.emplace_back("offload.nvme");
  } else if (offload.nvme().host_units() != 1) {
    ways.emplace_back(offload.nvme().host_units() == 0
                          ? "offload.nvme.host_units"
                          : "a smaller offload.nvme.host_units");
  }
  ways.emplace_back("no offload");
  return Either(ways);
}

}  // namespace

absl::StatusOr<RankModel::Probe> RankModel::ProbeForward(
    const TrainingSetup& setup, const Plan& plan, int rank) {
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  DryWorld world(rank, static_cast<int>(NumRanks(plan)));
  ASSIGN_OR_RETURN(const PlanLayout layout,
                   LayOutPlan(plan, *setup.family, rank));
  LocalModel model(setup, layout.grid, world, layout.communicators,
                   layout.chunks, device);
  model.inputs().Set(EmptyBatch(device, model.Fields(), layout.local_batch),
                     *setup.objective);
  Probe probe;
  for (const LocalModel::Part& part : model.parts()) {
    AllResident store;
    ChunkPass pass(model.context(), *part.chunk, store,
                   part.request.first_microbatch);
    pass.Forward(EmptyBoundary(device, part.chunk->Boundary(0)));
    RETURN_IF_ERROR(model.context().status());
    std::vector<AxisSet>& of_chunk = probe.sum_axes.emplace_back();
    for (const auto& parameter : part.store->parameters()) {
      of_chunk.push_back(parameter->gradient_sum_axes);
    }
    for (const Tape::Loss& loss : pass.losses()) probe.losses.insert(loss.name);
    for (const Tape::Counts& counts : pass.counts()) {
      probe.counts[counts.name] = counts.values.num_elements();
    }
  }
  return probe;
}

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::Create(
    const TrainingSetup& setup, const Plan& plan, Device& device,
    CommunicatorFactory& factory, const Probe& probe, const HomeBytes& home) {
  ASSIGN_OR_RETURN(PlanLayout layout,
                   LayOutPlan(plan, *setup.family, factory.world_rank()));
  std::unique_ptr<RankModel> model(new RankModel(setup, plan, std::move(layout),
                                                 device, factory, home.memory));
  RETURN_IF_ERROR(device.status());
  if (plan.offload().has_nvme() && !device.dry()) {
    RETURN_IF_ERROR(
        model->offload_->OpenDrive(home.drive, factory.world_rank()));
  }
  RETURN_IF_ERROR(model->BuildTraining(probe));
  model->AgreeOnReports(probe);
  return model;
}

RankModel::RankModel(const TrainingSetup& setup, const Plan& plan,
                     PlanLayout layout, Device& device,
                     CommunicatorFactory& factory, int64_t home_limit_bytes)
    : setup_(setup),
      plan_(plan),
      layout_(std::move(layout)),
      offload_(plan.has_offload()
                   ? std::make_unique<RankOffload>(
                         plan, setup.family->Shape().layers, setup.trained,
                         home_limit_bytes, device.dry())
                   : nullptr),
      // What the plan shards or offloads is made by ParameterShards and
      // OffloadedUnits.
      local_(setup, layout_.grid, factory, layout_.communicators,
             layout_.chunks, device,
             offload_ ? ParameterStore::Allocate::kNone
             : plan.sharding() == Plan::PARAMETERS
                 ? ParameterStore::Allocate::kFrozen
                 : ParameterStore::Allocate::kAll),
      loss_scaler_(setup.loss_scale) {}

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::DryRun(
    const TrainingSetup& setup, const Plan& plan, Device& dry_device, int rank,
    const BetweenSteps& rehearsal) {
  if (plan.offload().has_nvme() && plan.offload().nvme().host_units() == 0 &&
      setup.trained.kind == TrainedParameters::Kind::kAdapters) {
    return FailedPrecondition(
        "plan.offload.nvme: found a job that trains adapters, whose optimizer "
        "stays on the device, and no host_units, expected either of them "
        "otherwise");
  }
  ASSIGN_OR_RETURN(Probe probe, ProbeForward(setup, plan, rank));
  DryWorld world(rank, static_cast<int>(NumRanks(plan)));
  ASSIGN_OR_RETURN(std::unique_ptr<RankModel> model,
                   Create(setup, plan, dry_device, world, probe, {}));
  const auto sizes = static_cast<int32_t>(setup.buckets.size());
  // Steps with offload begin with the updates of the one before, and those with
  // delayed scaling have the scales that it needed.
  for (int32_t bucket =
           plan.has_offload() || model->delayed_scaling() != nullptr ? -1 : 0;
       bucket < std::max(sizes, 1); ++bucket) {
    const DriveBytes before = model->BlocksMoved();
    RETURN_IF_ERROR(
        model->Step(model->DryBatch(std::max(bucket, 0)), {.step = 1})
            .status());
    const DriveBytes after = model->BlocksMoved();
    const int64_t states =
        model->streamer() != nullptr ? model->streamer()->step_bytes() : 0;
    model->drive_step_ = {.read = after.read - before.read + states,
                          .written = after.written - before.written + states};
  }
  if (rehearsal != nullptr) RETURN_IF_ERROR(rehearsal(*model));
  RETURN_IF_ERROR(model->context().status());
  model->probe_ = std::move(probe);
  return model;
}

absl::StatusOr<MemoryStatistics> RankModel::PredictMemory(
    const TrainingSetup& setup, const Plan& plan, int rank, DeviceKind kind,
    const BetweenSteps& rehearsal) {
  ASSIGN_OR_RETURN(const Needs needs,
                   PredictNeeds(setup, plan, rank, kind, rehearsal));
  return needs.device;
}

absl::StatusOr<RankModel::Needs> RankModel::PredictNeeds(
    const TrainingSetup& setup, const Plan& plan, int rank, DeviceKind kind,
    const BetweenSteps& rehearsal) {
  const std::unique_ptr<Device> device =
      MakeDryDevice(kind, setup.kernel_libraries);
  ASSIGN_OR_RETURN(const std::unique_ptr<RankModel> model,
                   DryRun(setup, plan, *device, rank, rehearsal));
  Needs needs = {.device = device->Statistics(), .host = model->host_memory()};
  if (model->drive() != nullptr) {
    needs.drive_bytes = model->drive()->Statistics().peak_bytes;
  }
  needs.drive_step = model->drive_step();
  return needs;
}

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::Build(
    const TrainingSetup& setup, const Plan& plan, Device& device,
    CommunicatorFactory& factory, int64_t host_limit_bytes,
    const BetweenSteps& rehearsal) {
  const std::unique_ptr<Device> dry_device =
      MakeDryDevice(DeviceKindOf(device), setup.kernel_libraries);
  ASSIGN_OR_RETURN(
      const std::unique_ptr<RankModel> dry,
      DryRun(setup, plan, *dry_device, factory.world_rank(), rehearsal));
  const MemoryStatistics predicted = dry_device->Statistics();
  const int64_t limit = device.Statistics().limit_bytes;
  if (predicted.peak_bytes > limit) {
    return ResourceExhausted(
        "rank {} ({}) would need {} of its limit of {}: {}. To fit: {}",
        factory.world_rank(), dry->grid().ToString(),
        BytesText(predicted.peak_bytes), BytesText(limit),
        MemoryText(predicted.at_peak_by_category), WaysToFitDevice(plan));
  }

  const MemoryStatistics at_home = dry->host_memory();
  const int64_t home_limit =
      host_limit_bytes - (device.on_host() ? predicted.peak_bytes : 0);
  if (plan.has_offload() && at_home.peak_bytes > home_limit) {
    return ResourceExhausted(
        "rank {} ({}) would need {} of host memory, of which {} are left: {}. "
        "To fit: {}",
        factory.world_rank(), dry->grid().ToString(),
        BytesText(at_home.peak_bytes),
        BytesText(std::max<int64_t>(0, home_limit)),
        MemoryText(at_home.at_peak_by_category), WaysToFitHost(plan.offload()));
  }
  if (plan.has_offload()) {
    RETURN_IF_ERROR(dry->offload_->CheckPinning(device, factory.world_rank(),
                                                dry->OffloadedChunks()));
  }

  ASSIGN_OR_RETURN(std::unique_ptr<RankModel> model,
                   Create(setup, plan, device, factory, dry->probe_,
                          {.memory = home_limit,
                           .drive = dry->drive() != nullptr
                                        ? dry->drive()->Statistics().peak_bytes
                                        : 0}));
  model->predicted_ = predicted;
  model->drive_step_ = dry->drive_step_;
  return model;
}

void RankModel::BuildParts(const Probe& probe) {
  const std::vector<LocalModel::Part>& parts = local_.parts();
  const std::vector<int> contributions = layout_.Contributions(plan_);
  const GradientReducer::Timing timing =
      partial() && !layout_.AllReplicasVisited()
          ? GradientReducer::Timing::kInOrder
          : GradientReducer::Timing::kWhenComplete;
  std::vector<const ParameterBuckets*> buckets;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& parameters = parts[i].store->parameters();
    for (size_t j = 0; j < parameters.size(); ++j) {
      parameters[j]->gradient_sum_axes = probe.sum_axes[i][j];
    }
    Training& part = training_.emplace_back();
    part.buckets = std::make_unique<ParameterBuckets>(
        context(), parameters,
        static_cast<int64_t>(plan_.gradient_bucket_bytes()), ShardingOf(plan_),
        offload_ ? offload_->HomeOf(parts[i]) : UnitHome());
    buckets.push_back(part.buckets.get());
  }
  if (offload_) {
    offload_->MakeBuffers(parts, buckets, context().device(), setup_.dtype);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    Training& part = training_[i];
    if (!offload_) {
      part.shards = std::make_unique<ParameterShards>(context(), *part.buckets,
                                                      setup_.seed);
    }
    part.reducer = std::make_unique<GradientReducer>(context(), *part.buckets,
                                                     contributions[i], timing);
    if (offload_) {
      part.offloaded = offload_->MakeUnits(context(), parts[i], *part.buckets,
                                           *part.reducer, setup_.seed);
    }
  }
}

absl::Status RankModel::BuildTraining(const Probe& probe) {
  BuildParts(probe);
  std::vector<std::vector<OwnedParameter>> owned;
  std::vector<StoredBucket> stored;
  std::vector<ExecutorChunk> chunks;
  for (size_t i = 0; i < training_.size(); ++i) {
    const Training& part = training_[i];
    ExecutorChunk& chunk = chunks.emplace_back();
    chunk.chunk = local_.parts()[i].chunk.get();
    chunk.reducer = part.reducer.get();
    chunk.units = &part.units();
    chunk.first_bucket = static_cast<int>(owned.size());
    if (offload_) {
      chunk.program_units =
          offload_->ProgramUnits(local_.parts()[i], *part.buckets);
    }
    for (int b = 0; b < part.buckets->size(); ++b) {
      const ParameterBucket& bucket = (*part.buckets)[b];
      std::vector<OwnedParameter>& of_bucket = owned.emplace_back();
      stored.push_back({chunk.units, b});
      for (int p = 0; p < static_cast<int>(bucket.parameters.size()); ++p) {
        const ElementRange range = bucket.Owned(p);
        if (range.size() == 0) continue;
        OwnedParameter entry;
        entry.parameter = bucket.parameters[p];
        entry.range = range;
        entry.data_shards = bucket.shards;
        entry.value = part.OwnedValue(b, p);
        entry.gradient =
            part.reducer->OwnedGradient(b, p).Reshape(entry.value.shape());
        of_bucket.push_back(std::move(entry));
      }
    }
  }
  optimizer_ =
      std::make_unique<Optimizer>(context(), setup_.optimizer, setup_.seed,
                                  std::move(owned), drive(), stored);
  if (streamer() != nullptr) {
    for (const Tensor& buffer : streamer()->buffers()) {
      drive()->Register(buffer);
    }
  }
  RETURN_IF_ERROR(partial() ? CompilePartial(chunks) : CompileOrdinary());
  if (offload_) {
    const std::vector<const OffloadedUnits*> offloaded = OffloadedChunks();
    RETURN_IF_ERROR(offload_->PinHome(context().device(),
                                      context().communicators().world().rank(),
                                      offloaded));
    offload_->ExpectFetches(program_->ranks[layout_.pipeline_rank()], chunks,
                            offloaded);
  }
  executor_ =
      std::make_unique<Executor>(context(), *program_, layout_.pipeline_rank(),
                                 std::move(chunks), optimizer_.get());
  StartMagnitudes();
  return status();
}

std::vector<const OffloadedUnits*> RankModel::OffloadedChunks() const {
  std::vector<const OffloadedUnits*> chunks;
  for (const Training& part : training_) {
    chunks.push_back(part.offloaded.get());
  }
  return chunks;
}

int64_t RankModel::BlocksComputed() const {
  const std::vector<int> contributions = layout_.Contributions(plan_);
  int64_t blocks = 0;
  for (size_t i = 0; i < contributions.size(); ++i) {
    blocks += contributions[i] *
              (layout_.chunks[i].blocks.end - layout_.chunks[i].blocks.first);
  }
  return blocks * plan_.microbatch_size();
}

absl::Status RankModel::status() const {
  RETURN_IF_ERROR(local_.device().status());
  return offload_ ? offload_->status() : absl::OkStatus();
}

absl::Status RankModel::Evaluate(
    bool averaged,
    const std::function<absl::Status(LocalModel&, StageForward&)>& evaluate) {
  CHECK(!partial());
  const bool exchange = averaged && setup_.optimizer.ema_decay > 0;
  Settle();
  if (exchange) ExchangeAverages();
  std::vector<UnitStore*> stores;
  for (const Training& part : training_) stores.push_back(&part.units());
  StageForward forward(local_, plan_, std::move(stores));
  const absl::Status evaluated = evaluate(local_, forward);
  local_.inputs().Set(Batch(), *setup_.objective);
  if (exchange) ExchangeAverages();
  context().device().Synchronize();
  RETURN_IF_ERROR(evaluated);
  return status();
}

void RankModel::ExchangeAverages() {
  optimizer_->ExchangeAverages();
  PublishValues();
}

absl::Status RankModel::CompileOrdinary() {
  CompileOptions options;
  // Where the plan offloads, a block is a bucket.
  if (!offload_) {
    options.buckets_per_stage.assign(plan_.stages_size(), 1);
    for (size_t i = 0; i < training_.size(); ++i) {
      options.buckets_per_stage[layout_.stages[i]] =
          training_[i].buckets->size();
    }
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
  const int own = grid().logical_rank();
  const int first = own + std::min(own, instance.num_data_nodes());
  for (size_t i = 0; i < training_.size(); ++i) {
    buckets[first + i] = training_[i].buckets->size();
  }
  ASSIGN_OR_RETURN(
      SkipProgram compiled,
      BuildSkipProgram(instance, *layout_.skip, std::move(buckets)));
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

void RankModel::AgreeOnReports(const Probe& own) {
  std::vector<std::string> lines(own.losses.begin(), own.losses.end());
  for (const auto& [name, length] : own.counts) {
    lines.push_back(fmt::format("{}\t{}", name, length));
  }
  std::set<std::string> losses;
  for (const std::string& text : context().communicators().control().AllGather(
           absl::StrJoin(lines, "\n"), "names of losses")) {
    const std::vector<std::string> reported =
        absl::StrSplit(text, '\n', absl::SkipEmpty());
    for (const std::string& line : reported) {
      const std::vector<std::string> parts = absl::StrSplit(line, '\t');
      int64_t length = 0;
      if (parts.size() == 1) {
        losses.insert(parts[0]);
      } else {
        CHECK(absl::SimpleAtoi(parts[1], &length)) << line;
        counts_[parts[0]] = length;
      }
    }
  }
  loss_names_.assign(losses.begin(), losses.end());
}

bool RankModel::CountsSamples() const {
  const int64_t layers = setup_.family->Shape().layers;
  const bool has_losses = std::any_of(
      local_.parts().begin(), local_.parts().end(),
      [layers](const auto& part) { return part.request.has_head(layers); });
  return has_losses && grid().coordinate(Axis::kTensor) == 0 &&
         grid().coordinate(Axis::kContext) == 0;
}

double RankModel::TokensOf(const Batch& local_batch) const {
  for (const char* field : {kVoxelCountField, kSequenceLengthField}) {
    if (local_batch.Has(field)) return SumOf(local_batch, field);
  }
  const ModelFamily& family = setup_.buckets.empty()
                                  ? *setup_.family
                                  : *setup_.buckets[local_batch.bucket].family;
  return static_cast<double>(local_batch.size() * family.Shape().tokens);
}

double RankModel::CountedOf(const Batch& local_batch,
                            const Objective& objective) {
  if (objective.counted_field().empty()) return 0;
  double counted = CountsSamples() ? objective.Counted(local_batch) : 0;
  context().communicators().control().Sum(std::span(&counted, 1),
                                          "what losses are means over");
  return counted;
}

absl::StatusOr<GlobalStepResult> RankModel::Step(const Batch& local_batch,
                                                 const StepOptions& options) {
  CHECK_EQ(local_batch.size(), layout_.local_batch);
  Batch batch = local_batch;
  batch.counted = CountedOf(batch, *setup_.objective);
  local_.inputs().Set(std::move(batch), *setup_.objective);
  const double scale = loss_scaler_.state().scale;
  StepOptions scaled = options;
  // Steps that were left out do not count in Adam's bias correction.
  scaled.step =
      options.step - loss_scaler_.state().skipped_steps - left_out_steps_;
  scaled.loss_scale = scale;
  if (delayed_scaling() != nullptr) delayed_scaling()->BeginStep();
  ASSIGN_OR_RETURN(const StepResult step, executor_->RunStep(scaled));
  RETURN_IF_ERROR(status());
  if (delayed_scaling() != nullptr && options.update) {
    delayed_scaling()->EndStep(context().communicators().control());
  }
  // All ranks have the same norm, and so the same scale.
  loss_scaler_.Update(std::isfinite(step.gradient_norm));
  GlobalStepResult result;
  result.bucket = local_batch.bucket;
  if (CountsSamples()) result.tokens = TokensOf(local_batch);
  std::vector<double> sums;
  for (const std::string& name : loss_names_) {
    const auto own = step.losses.find(name);
    sums.push_back(own == step.losses.end() ? 0 : own->second);
  }
  for (const auto& [name, length] : counts_) {
    const auto own = step.counts.find(name);
    if (own != step.counts.end() && !own->second.empty()) {
      sums.insert(sums.end(), own->second.begin(), own->second.end());
    } else {
      sums.resize(sums.size() + length, 0);
    }
  }
  result.times = step.times;
  executor_->AwaitAll(context().communicators().control().StartSum(
                          std::span<double>(sums), "losses"),
                      result.times);
  for (size_t i = 0; i < loss_names_.size(); ++i) {
    result.losses[loss_names_[i]] = sums[i];
    result.loss += sums[i];
  }
  auto next = sums.begin() + static_cast<int64_t>(loss_names_.size());
  for (const auto& [name, length] : counts_) {
    result.counts[name].assign(next, next + length);
    next += length;
  }
  result.gradient_norm = step.gradient_norm;
  result.loss_scale = scale;
  result.skipped_steps = loss_scaler_.state().skipped_steps;
  return result;
}

Batch RankModel::DryBatch(int32_t bucket) const {
  std::vector<FieldSpec> read = fields();
  if (!setup_.buckets.empty()) {
    read = FieldsAt(read, setup_.buckets[bucket].size);
  }
  Batch batch = EmptyBatch(local_.device(), read, local_batch());
  batch.bucket = bucket;
  return batch;
}

int64_t RankModel::UnitPosition(int chunk, int unit) const {
  const LocalModel::Part& part = local_.parts()[chunk];
  const int64_t layers = setup_.family->Shape().layers;
  if (part.request.has_head(layers) && unit == part.chunk->num_units() - 1) {
    return layers + 1;
  }
  return part.request.blocks.first + unit +
         (part.request.has_embedding() ? 0 : 1);
}

void RankModel::EmulateCompute(const DeviceArithmetic& seconds,
                               EmulatedCompute& compute) {
  const ModelShape shape = setup_.family->Shape();
  for (size_t i = 0; i < local_.parts().size(); ++i) {
    const LocalModel::Part& part = local_.parts()[i];
    const int units = part.chunk->num_units();
    for (int unit = 0; unit < units; ++unit) {
      ModelPiece piece = ModelPiece::kHead;
      const int64_t position = UnitPosition(static_cast<int>(i), unit);
      if (position == 0) {
        piece = ModelPiece::kEmbedding;
      } else if (position <= shape.layers) {
        piece = {ModelPiece::kBlock,
                 BlockRunsIn(shape, position - 1, position).front().kind};
      }
      ArithmeticSeconds times = seconds.Of(piece);
      // A unit that is run again takes its forward's time once more.
      if (part.chunk->Recomputes(unit)) times.backward_s += times.forward_s;
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

}  // namespace trireme
