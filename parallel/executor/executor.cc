#include "parallel/executor/executor.h"

#include <algorithm>
#include <span>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "scheduler/program/instruction_kinds.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

// Losses are summed from here in place of from zero: what is added to it is
// rounded to a multiple of 2^-44, of which sums up to 128 are exact. So a
// step's loss is the same whatever the order of its parts, and however many
// ranks have them.
constexpr double kLossOrigin = 0x1.8p8;

Tensor OfLosses(Device& device, double value) {
  return Full(device, {1}, DType::kFloat64, value, MemoryCategory::kActivations,
              "loss");
}

StepCause CauseOf(InstructionKind kind) {
  switch (kind) {
    case InstructionKind::kForward:
      return StepCause::kForward;
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
      return StepCause::kBackwardInput;
    case InstructionKind::kBackwardWeight:
      return StepCause::kBackwardWeight;
    case InstructionKind::kSend:
    case InstructionKind::kRecv:
      return StepCause::kMessages;
    case InstructionKind::kReduceGradients:
      return StepCause::kReduceGradients;
    case InstructionKind::kClipGradients:
      return StepCause::kClip;
    case InstructionKind::kUpdate:
      return StepCause::kUpdate;
    case InstructionKind::kGatherParameters:
      return StepCause::kGatherParameters;
    case InstructionKind::kFetch:
    case InstructionKind::kRelease:
    case InstructionKind::kSaveGradients:
    case InstructionKind::kSaveActivation:
    case InstructionKind::kLoadActivation:
      return StepCause::kCopies;
  }
  return StepCause::kBegin;
}

// What the host does itself, it does between calls to the compute stream.
StreamKind StreamOf(Resource resource) {
  switch (resource) {
    case Resource::kCompute:
    case Resource::kHost:
      return StreamKind::kCompute;
    case Resource::kCommunication:
      return StreamKind::kCommunication;
    case Resource::kCopyIn:
      return StreamKind::kCopyIn;
    case Resource::kCopyOut:
      return StreamKind::kCopyOut;
  }
  return StreamKind::kCompute;
}

}  // namespace

Executor::Executor(ParallelContext& context, const Program& program,
                   int pipeline_rank, std::vector<ExecutorChunk> chunks,
                   Optimizer* optimizer)
    : context_(context),
      program_(program),
      pipeline_rank_(pipeline_rank),
      chunks_(std::move(chunks)),
      optimizer_(optimizer),
      messages_(context, program, pipeline_rank) {
  CHECK_EQ(static_cast<int>(chunks_.size()),
           ChunksOnRank(program, pipeline_rank));
  for (const Instruction& instruction : program.ranks[pipeline_rank]) {
    if (instruction.kind != InstructionKind::kUpdate) continue;
    for (const int bucket : BucketsOf(instruction)) {
      update_order_.push_back(chunks_[instruction.chunk].first_bucket + bucket);
    }
  }
  optimizer_->set_update_order(update_order_);
}

absl::StatusOr<StepResult> Executor::RunStep(const StepOptions& options) {
  StepLedger ledger(static_cast<int>(chunks_.size()), has_pipeline(),
                    options.processor_threads, StreamBehindHost());
  std::optional<StepTrace> trace;
  if (options.trace != nullptr) trace.emplace(context_.device());
  if (!program_.offload.has_value()) {
    ledger.Measure(StepCause::kBegin, 0, [&] {
      for (const ExecutorChunk& chunk : chunks_) chunk.reducer->BeginStep();
    });
  }
  const double waited_before = waits_for_updates_.seconds();
  const int64_t updated_before = optimizer_->home_bytes();
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  issued_.assign(list.size(), Event());
  if (Emulates()) ended_.assign(list.size(), {emulated_->Now(), 0});
  for (size_t i = 0; i < list.size(); ++i) {
    const Instruction& instruction = list[i];
    context_.communicators().world().SetActivity(ToText(instruction));
    ledger.Measure(CauseOf(instruction.kind), instruction.chunk,
                   [&] { Issue(i, options, ledger, trace); });
    absl::Status status = context_.device().status();
    status.Update(context_.status());
    if (!status.ok()) {
      return WithContext(status, fmt::format("step {}, {}", options.step,
                                             ToText(instruction)));
    }
  }
  ledger.Measure(StepCause::kMessages, 0, [&] { messages_.AwaitSends(); });
  context_.communicators().world().SetActivity("");
  CHECK(passes_.empty()) << "a forward without its backward";
  StepResult result;
  result.losses = TakeLosses();
  result.counts = TakeCounts();
  result.gradient_norm = gradient_norm_;
  result.times = ledger.Finish();
  if (trace.has_value()) {
    const std::vector<TraceEvent> events = trace->Finish();
    options.trace->insert(options.trace->end(), events.begin(), events.end());
  }
  result.times.update_wait = program_.offload.has_value()
                                 ? waits_for_updates_.seconds() - waited_before
                                 : result.times.update;
  result.times.update_bytes = optimizer_->home_bytes() - updated_before;
  return result;
}

void Executor::AwaitAll(Event event, StepTimes& times) const {
  StepLedger ledger(0, has_pipeline(), /*processor_threads=*/0);
  ledger.Measure(StepCause::kEndWait, 0, [&] { event.Wait(); });
  const StepTimes wait = ledger.Finish();
  times.pipeline_wait += wait.pipeline_wait;
  times.gradient_wait += wait.gradient_wait;
  times.step += wait.pipeline_wait + wait.gradient_wait;
}

bool Executor::RunsOnHostThread(const Instruction& instruction) {
  return TraitsOf(instruction.kind).unit_s == nullptr ||
         instruction.kind == InstructionKind::kForward ||
         instruction.kind == InstructionKind::kBackward;
}

bool Executor::ReadsOnHost(const Instruction& instruction) const {
  if (!program_.offload.has_value()) return false;
  // Offloaded gradients are clipped and used there.
  return instruction.kind == InstructionKind::kClipGradients ||
         instruction.kind == InstructionKind::kUpdate;
}

ProgramUnit Executor::UnitsOf(const Instruction& instruction) const {
  const ExecutorChunk& chunk = chunks_[instruction.chunk];
  if (instruction.unit >= 0) return chunk.program_units[instruction.unit];
  return {.begin = 0, .end = chunk.chunk->num_units()};
}

std::vector<int> Executor::BucketsOf(const Instruction& instruction) const {
  const std::vector<ProgramUnit>& units =
      chunks_[instruction.chunk].program_units;
  if (units.empty()) return {instruction.bucket};
  // Buckets are in the order of the backward.
  return units[units.size() - 1 - instruction.bucket].buckets;
}

Stream* Executor::StreamBehindHost() const {
  Stream& compute = context_.device().stream(StreamKind::kCompute);
  return compute.synchronous() ? nullptr : &compute;
}

void Executor::Issue(size_t index, const StepOptions& options,
                     StepLedger& ledger, std::optional<StepTrace>& trace) {
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  const StreamKind kind = StreamOf(list[index].resource);
  const StreamScope scope(context_.device(), kind);
  Stream& stream = context_.device().stream();
  // A stream's waits for others are no part of what it then does; the host's
  // own are.
  if (trace.has_value() && stream.synchronous()) trace->Begin(stream);
  if (Emulates()) EmulateBeside(index, ledger);
  AwaitDependencies(list[index], ledger);
  if (trace.has_value() && !stream.synchronous()) trace->Begin(stream);
  Run(index, options, ledger);
  if (trace.has_value()) {
    trace->End(stream,
               {.name = ToText(list[index]),
                .category = std::string(ResourceName(list[index].resource)),
                .rank = context_.communicators().world().rank(),
                .track = TrackOf(list[index]),
                .args = {}});
  }
  issued_[index] = context_.device().stream().Record();
  if (Emulates() && RunsOnHostThread(list[index])) {
    ended_[index] = {emulated_->Now(), 0};
  }
}

void Executor::AwaitDependencies(const Instruction& instruction,
                                 StepLedger& ledger) {
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  const StreamKind kind = StreamOf(instruction.resource);
  Stream& stream = context_.device().stream();
  for (const int32_t dependency : instruction.depends_on) {
    Event event = issued_[dependency];
    const StreamKind other = StreamOf(list[dependency].resource);
    if (ReadsOnHost(instruction)) {
      event.Synchronize();
    } else if (other == kind) {
      continue;
    } else if (kind != StreamKind::kCompute) {
      event.Wait(stream);
    } else {
      const auto wait = [&] {
        if (other == StreamKind::kCopyIn) {
          waits_for_copies_in_.Time(stream, [&] { event.Wait(stream); });
        } else if (other == StreamKind::kCopyOut) {
          waits_for_copies_out_.Time(stream, [&] { event.Wait(stream); });
        } else {
          event.Wait(stream);
        }
      };
      // The host's own waits are booked where it waits.
      if (ledger.by_stream()) {
        ledger.Measure(CauseOf(list[dependency].kind), list[dependency].chunk,
                       wait);
      } else {
        wait();
      }
    }
  }
}

void Executor::EmulateBeside(size_t index, StepLedger& ledger) {
  const Instruction& instruction = program_.ranks[pipeline_rank_][index];
  // Nothing is to be waited for before the step began.
  Ended ready = ended_[index];
  for (const int32_t dependency : instruction.depends_on) {
    ready.all = std::max(ready.all, ended_[dependency].all);
    ready.update = std::max(ready.update, ended_[dependency].update);
  }
  if (RunsOnHostThread(instruction)) {
    const auto sleep_until = [&](StepCause cause, double time) {
      if (time <= emulated_->Now()) return;
      ledger.Measure(cause, instruction.chunk,
                     [&] { emulated_->SleepUntil(time); });
    };
    if (instruction.chunk >= 0) {
      sleep_until(StepCause::kUpdate, std::min(ready.update, ready.all));
    }
    sleep_until(StepCause::kCopies, ready.all);
    return;
  }
  const auto seconds = TraitsOf(instruction.kind).unit_s;
  ended_[index].all = emulated_->Occupy(
      instruction.resource, ready.all,
      emulated_->Beside(instruction.chunk, instruction.unit).*seconds);
  ended_[index].update = instruction.kind == InstructionKind::kUpdate
                             ? ended_[index].all
                             : ready.update;
}

void Executor::Run(size_t index, const StepOptions& options,
                   StepLedger& ledger) {
  const Instruction& instruction = program_.ranks[pipeline_rank_][index];
  const ExecutorChunk* chunk =
      instruction.chunk >= 0 ? &chunks_[instruction.chunk] : nullptr;
  const Communicators& communicators = context_.communicators();
  const double exposed_before = communicators.ExposedParameterSeconds();
  if (instruction.resource == Resource::kCompute) {
    messages_.ReleaseCompletedSends();
  }
  switch (instruction.kind) {
    case InstructionKind::kForward:
      Forward(index, options, ledger);
      break;
    case InstructionKind::kBackward:
      Backward(index, Tape::WeightGradients::kImmediate, ledger);
      break;
    case InstructionKind::kBackwardInput:
      Backward(index, Tape::WeightGradients::kDeferred, ledger);
      break;
    case InstructionKind::kBackwardWeight:
      BackwardWeight(instruction);
      break;
    case InstructionKind::kSend:
      messages_.Send(instruction);
      break;
    case InstructionKind::kRecv:
      Receive(instruction);
      break;
    case InstructionKind::kReduceGradients:
      for (const int bucket : BucketsOf(instruction)) {
        chunk->reducer->Start(bucket);
      }
      break;
    case InstructionKind::kClipGradients:
      ClipGradients(options, ledger);
      break;
    case InstructionKind::kUpdate:
      if (program_.offload.has_value()) {
        UpdateLeft(instruction);
      } else if (options.update && chunk->updates) {
        for (const int bucket : BucketsOf(instruction)) {
          Update(chunk->first_bucket + bucket, options.step,
                 options.learning_rate);
        }
      }
      break;
    case InstructionKind::kGatherParameters:
      chunk->units->Publish(instruction.bucket);
      break;
    case InstructionKind::kFetch:
    case InstructionKind::kRelease:
    case InstructionKind::kSaveGradients:
      Copy(instruction);
      break;
    case InstructionKind::kSaveActivation:
    case InstructionKind::kLoadActivation:
      CopyInputs(instruction);
      break;
  }
  // Forward and backward only: the wait before clipping is gradient_wait.
  if (instruction.resource == Resource::kCompute &&
      instruction.microbatch >= 0) {
    ledger.NoteShardingWait(communicators.ExposedParameterSeconds() -
                            exposed_before);
  }
}

void Executor::Copy(const Instruction& instruction) {
  UnitStore& store = *chunks_[instruction.chunk].units;
  const ProgramUnit units = UnitsOf(instruction);
  for (int unit = units.begin; unit < units.end; ++unit) {
    if (instruction.kind == InstructionKind::kFetch) store.Fetch(unit);
    if (instruction.kind == InstructionKind::kRelease) store.Release(unit);
    if (instruction.kind == InstructionKind::kSaveGradients) {
      store.SaveGradients(unit);
    }
  }
}

void Executor::CopyInputs(const Instruction& instruction) {
  ChunkPass& pass = passes_.at(Key(instruction.microbatch, instruction.chunk));
  const ProgramUnit units = UnitsOf(instruction);
  if (instruction.kind == InstructionKind::kSaveActivation) {
    pass.SaveInputs(units.begin, units.end);
  } else {
    pass.LoadInputs(units.begin, units.end);
  }
}

StoredUnit Executor::UnitAfter(size_t index) const {
  // Else the Program says what is fetched when.
  if (program_.offload.has_value()) return {};
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  for (size_t i = index + 1; i < list.size(); ++i) {
    switch (list[i].kind) {
      case InstructionKind::kForward:
        return {chunks_[list[i].chunk].units, 0};
      case InstructionKind::kBackward:
      case InstructionKind::kBackwardInput: {
        const ExecutorChunk& chunk = chunks_[list[i].chunk];
        return {chunk.units, chunk.chunk->num_units() - 1};
      }
      default:
        break;
    }
  }
  return {};
}

std::vector<BoundarySpec> Executor::Crossing(const Instruction& instruction,
                                             Payload payload,
                                             bool incoming) const {
  const Chunk& chunk = *chunks_[instruction.chunk].chunk;
  const bool begin = incoming == (payload == Payload::kActivation);
  return chunk.Boundary(begin ? 0 : chunk.num_units());
}

std::vector<Tensor> Executor::Await(Payload payload,
                                    const Instruction& instruction,
                                    StepLedger& ledger) {
  std::vector<Tensor> tensors;
  if (auto arrival =
          messages_.Take(payload, instruction.microbatch, instruction.chunk,
                         Crossing(instruction, payload, /*incoming=*/true))) {
    ledger.Measure(StepCause::kMessages, 0, [&] {
      for (Event& event : arrival->events) event.Wait();
    });
    tensors = std::move(arrival->tensors);
  }
  return tensors;
}

void Executor::Forward(size_t index, const StepOptions& options,
                       StepLedger& ledger) {
  const Instruction& instruction = program_.ranks[pipeline_rank_][index];
  const ExecutorChunk& chunk = chunks_[instruction.chunk];
  const ProgramUnit units = UnitsOf(instruction);
  ChunkPass& pass =
      passes_
          .try_emplace(Key(instruction.microbatch, instruction.chunk), context_,
                       *chunk.chunk, *chunk.units, instruction.microbatch)
          .first->second;
  if (units.begin == 0) {
    pass.set_loss_scale(options.loss_scale);
    if (options.observer) {
      pass.set_observer(options.observer, instruction.chunk);
    }
    if (emulated_ != nullptr) {
      pass.set_emulated_compute(emulated_, instruction.chunk);
    }
    pass.queue().set_needed([reducer = chunk.reducer](Parameter& parameter) {
      reducer->Prepare(parameter);
    });
    pass.queue().set_ready([reducer = chunk.reducer](Parameter& parameter) {
      reducer->Contribute(parameter);
    });
    pass.EnterForward(Await(Payload::kActivation, instruction, ledger));
  }
  pass.ForwardUnits(units.begin, units.end, UnitAfter(index));
  if (units.end < chunk.chunk->num_units()) return;
  std::vector<Tensor> outputs = pass.LeaveForward();
  AddLosses(pass.losses());
  AddCounts(pass.counts());
  if (!outputs.empty()) {
    messages_.Deliver(
        instruction, Payload::kActivation,
        Crossing(instruction, Payload::kActivation, /*incoming=*/false),
        std::move(outputs));
  }
}

void Executor::Backward(size_t index, Tape::WeightGradients weight_gradients,
                        StepLedger& ledger) {
  const Instruction& instruction = program_.ranks[pipeline_rank_][index];
  const Key key(instruction.microbatch, instruction.chunk);
  const ProgramUnit units = UnitsOf(instruction);
  ChunkPass& pass = passes_.at(key);
  if (units.end == chunks_[instruction.chunk].chunk->num_units()) {
    pass.EnterBackward(Await(Payload::kGradient, instruction, ledger),
                       weight_gradients);
  }
  pass.BackwardUnits(units.begin, units.end, UnitAfter(index));
  if (units.begin > 0) return;
  std::vector<Tensor> gradients = pass.LeaveBackward();
  if (!gradients.empty()) {
    messages_.Deliver(
        instruction, Payload::kGradient,
        Crossing(instruction, Payload::kGradient, /*incoming=*/false),
        std::move(gradients));
  }
  if (weight_gradients == Tape::WeightGradients::kImmediate) {
    passes_.erase(key);
  }
}

void Executor::BackwardWeight(const Instruction& instruction) {
  const Key key(instruction.microbatch, instruction.chunk);
  passes_.at(key).BackwardWeight();
  passes_.erase(key);
}

void Executor::Receive(const Instruction& instruction) {
  messages_.Receive(instruction, Crossing(instruction, instruction.payload,
                                          /*incoming=*/true));
}

void Executor::ClipGradients(const StepOptions& options, StepLedger& ledger) {
  ledger.Measure(StepCause::kReduceGradients, 0, [&] {
    for (const ExecutorChunk& chunk : chunks_) {
      for (int b = 0; b < chunk.reducer->num_buckets(); ++b) {
        chunk.reducer->Wait(b);
      }
    }
  });
  for (const ExecutorChunk& chunk : chunks_) {
    if (chunk.gradient_factor == 1) continue;
    for (int b = 0; b < chunk.reducer->num_buckets(); ++b) {
      chunk.reducer->Scale(b, chunk.gradient_factor);
    }
  }
  // The sum of the norm is where all stages wait for the slowest.
  const Communicator& group = context_.communicators().model_shards();
  const double exposed_before = group.Statistics().exposed_seconds;
  gradient_norm_ = optimizer_->ClipGradients(options.loss_scale);
  ledger.BookWait(StepCause::kClipWait,
                  group.Statistics().exposed_seconds - exposed_before);
  if (program_.offload.has_value() && options.update) {
    left_ = {.buckets = {update_order_.begin(), update_order_.end()},
             .step = options.step,
             .learning_rate = options.learning_rate};
  }
  if (!options.admits) return;
  double loss = 0;
  for (const auto& [name, own] : Losses()) loss += own;
  ledger.Measure(StepCause::kClipWait, 0, [&] {
    context_.communicators().control().Sum(std::span(&loss, 1),
                                           "loss before the update");
  });
  if (!options.admits(loss, gradient_norm_)) optimizer_->LeaveOut();
}

void Executor::Update(int bucket, int64_t step, double learning_rate) {
  // With offload it runs beside computation.
  if (emulated_ != nullptr && !Emulates()) {
    for (const OwnedParameter& part : optimizer_->owned()[bucket]) {
      emulated_->Elapse(emulated_->update_seconds() *
                        static_cast<double>(part.value.num_elements()));
    }
  }
  optimizer_->Update(bucket, step, learning_rate);
}

void Executor::UpdateLeft(const Instruction& instruction) {
  const ExecutorChunk& chunk = chunks_[instruction.chunk];
  waits_for_updates_.Time(context_.device().stream(), [&] {
    for (const int bucket : BucketsOf(instruction)) {
      UseLeft(chunk, bucket);
      chunk.reducer->BeginStep(bucket);
    }
  });
  if (left_.buckets.empty()) optimizer_->ExpectUpdates();
}

void Executor::UseLeft(const ExecutorChunk& chunk, int bucket) {
  const int position = chunk.first_bucket + bucket;
  if (left_.buckets.erase(position) == 0) return;
  Update(position, left_.step, left_.learning_rate);
  chunk.units->Publish(bucket);
}

void Executor::FinishUpdates() {
  if (left_.buckets.empty()) return;
  for (const Instruction& instruction : program_.ranks[pipeline_rank_]) {
    if (instruction.kind != InstructionKind::kUpdate) continue;
    for (const int bucket : BucketsOf(instruction)) {
      UseLeft(chunks_[instruction.chunk], bucket);
    }
  }
}

void Executor::AddLosses(const std::vector<Tape::Loss>& losses) {
  for (const Tape::Loss& loss : losses) {
    const auto [found, first] = losses_.try_emplace(loss.name);
    if (first) {
      found->second = OfLosses(context_.device(), kLossOrigin);
    }
    AddInPlace(loss.value.dtype() == DType::kFloat64
                   ? loss.value
                   : Cast(loss.value, DType::kFloat64),
               found->second, loss.weight);
  }
}

void Executor::AddCounts(const std::vector<Tape::Counts>& counts) {
  for (const Tape::Counts& own : counts) {
    const auto [found, first] = counts_.try_emplace(own.name);
    if (first) {
      found->second =
          Tensor::Zeros(context_.device(), own.values.shape(), DType::kFloat64,
                        MemoryCategory::kActivations, "counts");
    }
    AddInPlace(own.values.dtype() == DType::kFloat64
                   ? own.values
                   : Cast(own.values, DType::kFloat64),
               found->second);
  }
}

std::map<std::string, std::vector<double>> Executor::TakeCounts() {
  std::map<std::string, std::vector<double>> counts;
  for (const auto& [name, sum] : counts_) {
    counts[name] = Download<double>(sum);
  }
  counts_.clear();
  return counts;
}

std::map<std::string, double> Executor::Losses() const {
  std::map<std::string, double> losses;
  for (const auto& [name, sum] : losses_) {
    const Tensor own = OfLosses(context_.device(), -kLossOrigin);
    AddInPlace(sum, own);
    losses[name] = Sum(own);
  }
  return losses;
}

std::map<std::string, double> Executor::TakeLosses() {
  std::map<std::string, double> losses = Losses();
  losses_.clear();
  return losses;
}

}  // namespace trireme
