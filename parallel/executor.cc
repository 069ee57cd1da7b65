#include "parallel/executor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Whether this rank's value is part of a sum over all ranks: of ranks that hold
// the same value only the first counts.
bool CountsOnce(const AxisStates& states, const ProcessGrid& grid) {
  return std::all_of(kAllAxes.begin(), kAllAxes.end(), [&](Axis axis) {
    return axis == Axis::kPipeline || grid.coordinate(axis) == 0 ||
           states[axis].kind == AxisState::Kind::kPartial;
  });
}

}  // namespace

class Executor::Residency {
 public:
  Residency(ParallelContext& context, const ChunkPass& pass,
            const std::optional<ChunkPass>& next)
      : context_(context), shards_(*pass.shards) {
    shards_.BeginPass(pass.direction, next.has_value() ? next->shards : nullptr,
                      next.has_value() ? next->direction : pass.direction);
    context_.set_residency(&shards_);
  }
  ~Residency() {
    shards_.ReleaseAll();
    context_.set_residency(nullptr);
  }
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

 private:
  ParallelContext& context_;
  ParameterShards& shards_;
};

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
}

std::optional<Executor::ChunkPass> Executor::PassOf(
    const Instruction& instruction) const {
  switch (instruction.kind) {
    case InstructionKind::kForward:
      return ChunkPass{chunks_[instruction.chunk].shards,
                       PassDirection::kForward};
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
      return ChunkPass{chunks_[instruction.chunk].shards,
                       PassDirection::kBackward};
    default:
      return std::nullopt;
  }
}

std::optional<Executor::ChunkPass> Executor::PassAfter(size_t index) const {
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  for (size_t i = index + 1; i < list.size(); ++i) {
    if (const auto pass = PassOf(list[i])) return pass;
  }
  return std::nullopt;
}

absl::StatusOr<StepResult> Executor::RunStep(const StepOptions& options) {
  StepResult result;
  StepTimes& times = result.times;
  times.costs.chunks.resize(chunks_.size());
  clock_ = StepClock(options.processor_threads);
  waited_ = {};
  const StepClock::Span start = clock_.Now();
  for (const ExecutorChunk& chunk : chunks_) chunk.reducer->BeginStep();
  const StepClock::Span begun = clock_.Now() - start;
  times.optimizer += begun.wall;
  times.costs.begin = begun.cost;
  const std::vector<Instruction>& list = program_.ranks[pipeline_rank_];
  for (size_t i = 0; i < list.size(); ++i) {
    const Instruction& instruction = list[i];
    const int64_t instruction_start_ns = NowNs();
    context_.communicators().world().SetActivity(ToText(instruction));
    Run(i, options, result);
    if (absl::Status status = context_.device().status(); !status.ok()) {
      return WithContext(status, fmt::format("step {}, {}", options.step,
                                             ToText(instruction)));
    }
    if (options.trace != nullptr) {
      options.trace->push_back(
          {.name = ToText(instruction),
           .category = std::string(ResourceName(instruction.resource)),
           .rank = context_.communicators().world().rank(),
           .track = std::string(ResourceName(instruction.resource)),
           .start_ns = instruction_start_ns,
           .duration_ns = NowNs() - instruction_start_ns,
           .args = {}});
    }
  }
  const StepClock::Span ended = clock_.Now();
  messages_.AwaitSends();
  times.pipeline_wait += (clock_.Now() - ended).wall;
  context_.communicators().world().SetActivity("");
  CHECK(passes_.empty()) << "a forward without its backward";
  times.step = (clock_.Now() - start).wall;
  return result;
}

void Executor::AwaitAll(Event event, StepTimes& times) const {
  const StepClock::Span start = clock_.Now();
  event.Wait();
  const double seconds = (clock_.Now() - start).wall;
  BookWaitForAll(seconds, times);
  times.step += seconds;
}

void Executor::BookWaitForAll(double seconds, StepTimes& times) const {
  (context_.grid().size(Axis::kPipeline) > 1 ? times.pipeline_wait
                                             : times.gradient_wait) += seconds;
}

void Executor::Run(size_t index, const StepOptions& options,
                   StepResult& result) {
  const Instruction& instruction = program_.ranks[pipeline_rank_][index];
  const StepClock::Span start = clock_.Now();
  const StepClock::Span waited_before = waited_;
  const Communicators& communicators = context_.communicators();
  const double exposed_before = communicators.ExposedParameterSeconds();
  if (instruction.resource == Resource::kCompute) {
    messages_.ReleaseCompletedSends();
  }
  std::optional<Residency> residency;
  if (const auto pass = PassOf(instruction)) {
    residency.emplace(context_, *pass, PassAfter(index));
  }
  switch (instruction.kind) {
    case InstructionKind::kForward:
      Forward(instruction, result);
      break;
    case InstructionKind::kBackward:
      Backward(instruction, Tape::WeightGradients::kImmediate);
      break;
    case InstructionKind::kBackwardInput:
      Backward(instruction, Tape::WeightGradients::kDeferred);
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
      chunks_[instruction.chunk].reducer->Start(instruction.bucket);
      break;
    case InstructionKind::kClipGradients:
      ClipGradients(options, result);
      break;
    case InstructionKind::kUpdate:
      if (!options.update || !chunks_[instruction.chunk].updates) break;
      optimizer_->Update(
          chunks_[instruction.chunk].first_bucket + instruction.bucket,
          options.step, options.learning_rate);
      break;
    case InstructionKind::kGatherParameters:
      chunks_[instruction.chunk].shards->StartGather(instruction.bucket);
      break;
    default:
      CHECK(false) << "no generator emits "
                   << InstructionKindName(instruction.kind);
  }
  residency.reset();
  const StepClock::Span waited = waited_ - waited_before;
  result.times.pipeline_wait += waited.wall;
  Book(instruction, clock_.Now() - start - waited, result.times);
  // Forward and backward only: the wait before clipping is gradient_wait.
  if (instruction.resource == Resource::kCompute &&
      instruction.microbatch >= 0) {
    result.times.sharding_wait +=
        communicators.ExposedParameterSeconds() - exposed_before;
  }
}

void Executor::Book(const Instruction& instruction,
                    const StepClock::Span& spent, StepTimes& times) const {
  const auto chunk = [&]() -> ChunkCosts& {
    return times.costs.chunks[instruction.chunk];
  };
  switch (instruction.kind) {
    case InstructionKind::kForward:
      times.forward += spent.wall;
      chunk().forward += spent.cost;
      break;
    case InstructionKind::kBackward:
    case InstructionKind::kBackwardInput:
      times.backward += spent.wall;
      chunk().backward_input += spent.cost;
      break;
    case InstructionKind::kBackwardWeight:
      times.backward += spent.wall;
      chunk().backward_weight += spent.cost;
      break;
    case InstructionKind::kSend:
    case InstructionKind::kRecv:
      times.pipeline_wait += spent.wall;
      break;
    case InstructionKind::kReduceGradients:
      times.gradient_wait += spent.wall;
      times.costs.reduction += spent.cost;
      break;
    case InstructionKind::kUpdate:
      times.optimizer += spent.wall;
      chunk().update += spent.cost;
      break;
    case InstructionKind::kGatherParameters:
      times.gradient_wait += spent.wall;
      break;
    default:  // ClipGradients books its parts itself
      break;
  }
}

void Executor::ClipGradients(const StepOptions& options, StepResult& result) {
  StepTimes& times = result.times;
  const StepClock::Span start = clock_.Now();
  for (const ExecutorChunk& chunk : chunks_) {
    for (int b = 0; b < chunk.reducer->num_buckets(); ++b) {
      chunk.reducer->Wait(b);
    }
  }
  const StepClock::Span reduced = clock_.Now();
  times.gradient_wait += (reduced - start).wall;
  times.costs.reduction += (reduced - start).cost;
  for (const ExecutorChunk& chunk : chunks_) {
    if (chunk.gradient_factor == 1) continue;
    for (int b = 0; b < chunk.reducer->num_buckets(); ++b) {
      chunk.reducer->Scale(b, chunk.gradient_factor);
    }
  }
  // The sum of the norm is where all stages wait for the slowest.
  const Communicator& group = context_.communicators().model_shards();
  const double exposed_before = group.Statistics().exposed_seconds;
  result.gradient_norm = optimizer_->ClipGradients(options.loss_scale);
  const double waited = group.Statistics().exposed_seconds - exposed_before;
  BookWaitForAll(waited, times);
  const StepClock::Span spent = clock_.Now() - reduced;
  times.optimizer += spent.wall - waited;
  // Processor time hardly runs while the rank waits.
  times.costs.clip += std::min(spent.cost, spent.wall - waited);
  times.costs.clip_wait += waited;
}

std::vector<Tensor> Executor::Await(PipelineMessages::Arrival arrival) {
  const StepClock::Span start = clock_.Now();
  for (Event& event : arrival.events) event.Wait();
  waited_ += clock_.Now() - start;
  return std::move(arrival.tensors);
}

void Executor::Forward(const Instruction& instruction, StepResult& result) {
  const Key key(instruction.microbatch, instruction.chunk);
  Chunk& chunk = *chunks_[instruction.chunk].chunk;
  Pass pass;
  pass.tape = std::make_unique<Tape>(context_.device());
  pass.tape->set_gradient_needed(
      [reducer = chunks_[instruction.chunk].reducer](Parameter& parameter) {
        reducer->Prepare(parameter);
      });
  pass.tape->set_gradient_ready(
      [reducer = chunks_[instruction.chunk].reducer](Parameter& parameter) {
        reducer->Contribute(parameter);
      });
  if (auto arrival = messages_.Take(
          Payload::kActivation, instruction.microbatch, instruction.chunk)) {
    for (Tensor& tensor : Await(*std::move(arrival))) {
      pass.inputs.push_back(pass.tape->Leaf(std::move(tensor)));
    }
  }
  ForwardContext context{*pass.tape, context_};
  std::vector<Tensor> outputs;
  bool counts = true;
  for (ShardedVariable& output :
       chunk.Forward(context, instruction.microbatch, pass.inputs)) {
    counts = CountsOnce(output.states, context_.grid());
    outputs.push_back(output.value());
    pass.outputs.push_back(std::move(output.variable));
  }
  if (chunk.computes_loss()) {
    CHECK_EQ(outputs.size(), size_t{1});
    if (counts) result.local_loss += Sum(outputs[0]);
  } else {
    messages_.Deliver(instruction, Payload::kActivation, std::move(outputs));
  }
  passes_.emplace(key, std::move(pass));
}

void Executor::Backward(const Instruction& instruction,
                        Tape::WeightGradients weight_gradients) {
  const Key key(instruction.microbatch, instruction.chunk);
  Pass& pass = passes_.at(key);
  std::vector<Tensor> seeds(pass.outputs.size());
  if (auto arrival = messages_.Take(Payload::kGradient, instruction.microbatch,
                                    instruction.chunk)) {
    seeds = Await(*std::move(arrival));
  }
  std::vector<Variable> outputs = std::move(pass.outputs);
  // The outputs' values went to the next stage; nothing needs them here.
  pass.tape->Backward(outputs, seeds, weight_gradients);
  outputs.clear();
  seeds.clear();
  std::vector<Tensor> input_gradients;
  for (const Variable& input : pass.inputs) {
    Tensor gradient = pass.tape->TakeGradient(input);
    if (!gradient.defined()) {
      gradient = Tensor::Zeros(context_.device(), input.value().shape(),
                               input.value().dtype());
    }
    input_gradients.push_back(std::move(gradient));
  }
  pass.inputs.clear();
  if (!input_gradients.empty()) {
    messages_.Deliver(instruction, Payload::kGradient,
                      std::move(input_gradients));
  }
  if (weight_gradients == Tape::WeightGradients::kImmediate) {
    passes_.erase(key);
  }
}

void Executor::BackwardWeight(const Instruction& instruction) {
  const Key key(instruction.microbatch, instruction.chunk);
  passes_.at(key).tape->RunWeightGradients();
  passes_.erase(key);
}

void Executor::Receive(const Instruction& instruction) {
  const Chunk& chunk = *chunks_[instruction.chunk].chunk;
  messages_.Receive(instruction, instruction.payload == Payload::kActivation
                                     ? chunk.InputSpecs()
                                     : chunk.OutputSpecs());
}

}  // namespace trireme
